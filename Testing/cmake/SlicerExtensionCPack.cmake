# Slicer's own build makes the packages; only the installed tree is checked here.
