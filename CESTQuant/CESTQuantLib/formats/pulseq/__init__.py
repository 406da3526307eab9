"""Pulseq sequence files (.seq): their text, what they play, the protocol that this is, and writing them."""
