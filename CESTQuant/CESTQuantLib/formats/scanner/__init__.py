"""Scanner files as images with geometry, offsets and what they say of the saturation.

Bruker ParaVision folders are read here, DICOM files in a folder of their own.
"""
