"""Acquisition schedules: their limits, the Cramér-Rao bound, and the chain through which they are optimised."""
