"""Report pictures and ``report.json``."""
