"""Spin physics: pools, lineshapes, protocols, and the Bloch-McConnell and R1rho engines that simulate Z-spectra."""
