"""What a run leaves behind besides its results: report pictures and ``report.json``."""
