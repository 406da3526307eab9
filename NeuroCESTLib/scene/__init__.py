"""The MRML scene: nodes to arrays with their geometry and back, files through Slicer, and the headless host."""
