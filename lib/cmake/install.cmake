# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` gives: headers, the shared library, the CMake package wkv::wkv, wkv.pc and the licence.
include(CMakePackageConfigHelpers)
set(WKV_INSTALL_CMAKEDIR ${CMAKE_INSTALL_LIBDIR}/cmake/wkv)

install(TARGETS wkv EXPORT wkv_targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/wkv DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")
install(EXPORT wkv_targets FILE wkv-targets.cmake NAMESPACE wkv:: DESTINATION ${WKV_INSTALL_CMAKEDIR})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/wkv-config.cmake.in ${PROJECT_BINARY_DIR}/wkv-config.cmake
  INSTALL_DESTINATION ${WKV_INSTALL_CMAKEDIR} NO_SET_AND_CHECK_MACRO)
# Until 1.0 a minor version may change the ABI.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/wkv-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/wkv-config.cmake ${PROJECT_BINARY_DIR}/wkv-config-version.cmake
  DESTINATION ${WKV_INSTALL_CMAKEDIR})

# The prefix in wkv.pc is relative to the file, so that an installed tree can be moved.
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  file(RELATIVE_PATH WKV_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
  string(REGEX REPLACE "/$" "" WKV_PC_PREFIX "\${pcfiledir}/${WKV_PC_PREFIX}")
else()
  set(WKV_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
endif()
foreach(folder LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${folder}}")
    set(WKV_PC_${folder} ${CMAKE_INSTALL_${folder}})
  else()
    set(WKV_PC_${folder} "\${prefix}/${CMAKE_INSTALL_${folder}}")
  endif()
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/wkv.pc.in ${PROJECT_BINARY_DIR}/wkv.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/wkv.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
