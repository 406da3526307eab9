"""The results of a cohort: one tidy table, the changes, comparisons of groups and visits, and the page."""
