"""Losses with which the networks are trained."""
