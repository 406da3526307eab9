"""Losses that networks are trained with."""
