"""Results that appear whole or not at all, are written by one run at a time, and have the same bytes in every run."""
