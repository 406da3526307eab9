"""Spatial prior of a fit: neighbouring voxels are likely to have similar parameters, except across edges."""
