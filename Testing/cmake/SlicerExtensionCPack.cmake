# Packages are made by Slicer's own build; the installed tree is what is checked here.
