"""What needs no Slicer: progress, processes, whole files, tensor files, checked JSON, devices and threads."""
