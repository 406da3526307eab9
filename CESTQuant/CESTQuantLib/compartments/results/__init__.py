"""What an analysis of compartments returns: numbers, images and quality of each visit, and what changed between them.

Arrays are (K, J, I) on the voxel grid of the CEST maps of their visit unless noted; matrices are in the order
(i, j, k), world coordinates are RAS in mm. A number that is not known is NaN.
"""
