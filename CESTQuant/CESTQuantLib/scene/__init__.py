"""The scene layer of CESTQuant: nodes and files to spectra, maps to nodes, and reports."""
