# SPDX-License-Identifier: Apache-2.0
# Whether the CUDA plugin is built (WKV_HAS_CUDA), and for what.
#   WKV_CUDA=AUTO|ON|OFF           AUTO: when nvcc and cuBLASLt are found and nothing is instrumented
#   WKV_CUDA_FAT=ON                for release: every architecture from sm_75 to sm_120, and PTX for later ones
#   CMAKE_CUDA_ARCHITECTURES=...   your own choice; without it that of the first GPU here, else sm_90a
set(WKV_CUDA AUTO CACHE STRING "Build the CUDA plugin: AUTO, ON or OFF")
option(WKV_CUDA_FAT "Build the CUDA plugin for all architectures" OFF)
if(WKV_CUDA STREQUAL "OFF" OR (WKV_CUDA STREQUAL "AUTO" AND WKV_SANITIZE))
  set(WKV_HAS_CUDA OFF)
  return()
endif()

if(WKV_CUDA_FAT)
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90a-real 100-real 120)
elseif(NOT CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE compute OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  string(REGEX MATCH "^[0-9]+\\.[0-9]+" compute "${compute}")
  string(REPLACE "." "" compute "${compute}")
  if(failed OR NOT compute OR compute EQUAL 90)
    set(compute 90a)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${compute}-real)
endif()

include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 does not know that nvcc has it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  find_package(CUDAToolkit)
endif()
if(NOT TARGET CUDA::cublasLt)
  if(WKV_CUDA STREQUAL "ON")
    message(FATAL_ERROR "WKV_CUDA is ON, but nvcc or cuBLASLt is missing")
  endif()
  message(STATUS "CUDA plugin: not built, nvcc or cuBLASLt is missing")
  set(WKV_HAS_CUDA OFF)
else()
  set(WKV_HAS_CUDA ON)
endif()
