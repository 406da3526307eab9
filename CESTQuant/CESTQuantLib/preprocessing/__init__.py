"""What happens to spectra before a method sees them: normalization and field correction."""
