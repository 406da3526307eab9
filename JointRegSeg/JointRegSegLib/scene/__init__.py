"""Studies read from MRML nodes, results put into the scene, and the picture of a run."""
