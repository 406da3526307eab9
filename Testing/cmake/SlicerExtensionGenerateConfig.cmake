# The meta-information that the extension index reads.
foreach(name HOMEPAGE CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if(NOT EXTENSION_${name})
    message(FATAL_ERROR "EXTENSION_${name} is not set")
  endif()
endforeach()
if(PROJECT_NAME MATCHES "^Slicer")
  message(FATAL_ERROR "the name of an extension must not start with 'Slicer'")
endif()
