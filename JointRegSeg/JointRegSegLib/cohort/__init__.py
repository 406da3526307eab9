"""Cohorts of patients: the manifest, studies prepared for training and their cache, and the pairs drawn from them."""
