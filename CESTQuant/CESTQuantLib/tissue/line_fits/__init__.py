"""Fits of single lines over a background: polynomial and Lorentzian line-shape fitting (PLOF)."""
