# Slicer's file of this name sets up compilers and CTest; Python modules need the latter only.
option(BUILD_TESTING "Register the tests" ON)
enable_testing()
