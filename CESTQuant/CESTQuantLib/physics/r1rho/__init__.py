"""The analytic engine: water locked along the effective field, with derivatives written out by hand."""
