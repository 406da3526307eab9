"""Scanner files: Bruker ParaVision folders as images with geometry, offsets and what they say of the saturation."""
