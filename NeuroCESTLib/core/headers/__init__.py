"""Headers of image files and scenes, checked before a library reads them.

Slicer's storage nodes, ITK and their format libraries trust a header: a damaged one can end the process, fill the
memory or place an image kilometres away. Every file is therefore checked here first, by ``checks.check_file``, and
refused in one sentence that names it.
"""
