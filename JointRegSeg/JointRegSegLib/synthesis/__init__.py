"""Synthetic patients: anatomy, tumours, contrasts, and a true deformation between two visits."""
