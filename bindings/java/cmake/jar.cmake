# SPDX-License-Identifier: Apache-2.0
# cmake -D... -P jar.cmake: compiles every source below SOURCES (which ones there are is known after SWIG alone) and packs
# classes, libraries and licence into JAR.
file(REMOVE_RECURSE ${WORK}/classes)
file(GLOB_RECURSE sources ${SOURCES}/*.java)
list(JOIN sources "\n" sources)
file(WRITE ${WORK}/sources.txt "${sources}\n")
execute_process(COMMAND ${JAVAC} --release 17 -encoding UTF-8 -Xlint:all -Werror -d ${WORK}/classes @${WORK}/sources.txt
  COMMAND_ERROR_IS_FATAL ANY)

set(folder ${WORK}/classes/dev/wkv/native/${PLATFORM})
set(names)
foreach(library ${LIBRARIES})
  string(REGEX REPLACE "=.*" "" name ${library})
  string(REGEX REPLACE "^[^=]*=" "" path ${library})
  file(REAL_PATH ${path} path)
  file(MAKE_DIRECTORY ${folder})
  file(COPY_FILE ${path} ${folder}/${name})
  string(APPEND names "${name}\n")
endforeach()
file(WRITE ${folder}/libraries "${names}")
file(COPY ${LICENSE} DESTINATION ${WORK}/classes/META-INF)
file(COPY ${POM} DESTINATION ${WORK}/classes/META-INF/maven/dev.wkv/wkv)
execute_process(COMMAND ${JAR} --create --file ${OUTPUT} --module-version ${VERSION} -C ${WORK}/classes .
  COMMAND_ERROR_IS_FATAL ANY)
