"""Two visits through the network: segmentations, deformation, volumes and their uncertainty."""
