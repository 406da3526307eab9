"""Between scene and science: acquisitions and maps as tensors, results as nodes, their display and their report."""
