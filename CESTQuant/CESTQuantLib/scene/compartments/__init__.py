"""Compartments of a tumour in the scene: visits as nodes, and the analysis as tables, segmentations and maps."""
