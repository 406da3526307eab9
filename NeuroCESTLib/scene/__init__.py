"""The MRML scene: nodes to tensors with their geometry and back, files through Slicer, and the headless host."""
