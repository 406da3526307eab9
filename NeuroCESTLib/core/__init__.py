"""Code that needs no Slicer and that both modules share.

Progress and cancelling, processes and threads, files that are written whole, tensor files, checked JSON, devices,
smoothing, conventions of label maps, and figures for report pictures.
"""
