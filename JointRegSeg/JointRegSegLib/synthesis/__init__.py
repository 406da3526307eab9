"""Synthetic glioma patients for training and tests, and a small phantom that needs no template."""
