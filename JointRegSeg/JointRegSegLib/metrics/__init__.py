"""Scores of segmentations and registrations."""
