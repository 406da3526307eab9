"""Cohorts of patients: manifest, prepared studies, their cache, and the pairs drawn from them."""
