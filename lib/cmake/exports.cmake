# SPDX-License-Identifier: Apache-2.0
# The symbols of lib/api/exports.txt, and no others, leave libwkv: the linker's version script is made from the list.
function(wkv_limit_exports target list)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${list})
  file(STRINGS ${list} symbols REGEX "^wkv_")
  if(APPLE)
    list(TRANSFORM symbols PREPEND "_" OUTPUT_VARIABLE lines)
    list(JOIN lines "\n" content)
    set(option "LINKER:-exported_symbols_list,")
  elseif(UNIX)
    list(JOIN symbols ";\n    " lines)
    set(content "WKV_${WKV_SOVERSION} {\n  global:\n    ${lines};\n  local:\n    *;\n};")
    set(option "LINKER:--version-script,")
  else()
    return()  # Windows: declarations alone decide
  endif()
  set(script ${CMAKE_CURRENT_BINARY_DIR}/${target}.exports)
  file(CONFIGURE OUTPUT ${script} CONTENT "${content}\n" @ONLY)
  target_link_options(${target} PRIVATE "${option}${script}")
  set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${script})
endfunction()

wkv_limit_exports(wkv ${PROJECT_SOURCE_DIR}/lib/api/exports.txt)
