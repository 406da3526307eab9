# The CMake macros of Slicer that this extension uses, to check its packaging without a build of Slicer. They refuse
# what Slicer's macros refuse, install to the same place, and register the same tests.
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-5.13/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionGenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionCPack.cmake")

# Copies files to the build tree and installs them; refuses files that do not exist.
function(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR" "TARGET_NAME;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_TARGET_NAME OR NOT MY_DESTINATION_DIR OR NOT MY_INSTALL_DIR)
    message(FATAL_ERROR "ctkMacroCompilePythonScript: unknown or missing arguments: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file IN LISTS MY_SCRIPTS MY_RESOURCES)
    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
      message(FATAL_ERROR "${MY_TARGET_NAME} lists a file that does not exist: ${file}")
    endif()
    get_filename_component(folder "${file}" DIRECTORY)
    file(COPY "${CMAKE_CURRENT_SOURCE_DIR}/${file}" DESTINATION "${MY_DESTINATION_DIR}/${folder}")
    install(FILES "${file}" DESTINATION "${MY_INSTALL_DIR}/${folder}")
  endforeach()
  add_custom_target(${MY_TARGET_NAME} ALL)
endfunction()

function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_NAME)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: unknown or missing arguments: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MY_NAME} SCRIPTS ${MY_SCRIPTS} RESOURCES ${MY_RESOURCES}
    DESTINATION_DIR ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
    INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR} NO_INSTALL_SUBDIR)
  if(BUILD_TESTING AND MY_WITH_GENERIC_TESTS)
    add_test(NAME nomainwindow_py_${MY_NAME}ModuleGenericTest COMMAND Slicer --no-main-window)
  endif()
endfunction()

function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  get_filename_component(name "${MY_SCRIPT}" NAME_WE)
  if(MY_UNPARSED_ARGUMENTS OR NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT}")
    message(FATAL_ERROR "slicer_add_python_unittest: no script ${MY_SCRIPT}")
  endif()
  add_test(NAME ${MY_TESTNAME_PREFIX}py_${name} COMMAND Slicer --no-main-window)
endfunction()
