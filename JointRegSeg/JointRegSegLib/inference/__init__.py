"""Processing of two visits: segmentations, deformation, volumes of the tumour regions and their uncertainty."""
