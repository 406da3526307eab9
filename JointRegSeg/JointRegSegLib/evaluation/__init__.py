"""Evaluation of weights on a cohort: a row of numbers and a picture per case, and their summary."""
