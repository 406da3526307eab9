# Slicer's file of this name sets up compilers and CTest, of which Python modules need only CTest.
option(BUILD_TESTING "Register the tests" ON)
enable_testing()
