"""Reconstruction networks: simulated data sets, training, dictionary matching and the reliability of estimates."""
