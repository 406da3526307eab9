"""Simulated CEST acquisitions of a given anatomy, with their true values."""
