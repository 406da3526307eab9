"""Names of the rules by which pulseq blocks are played."""

RULES = ("pulseq-cest", "pulseq")
"""The default first; :func:`.played_events` says what they are."""
