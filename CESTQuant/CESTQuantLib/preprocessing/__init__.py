"""What happens to signals before a method uses them: normalisation, field maps and correction for B0 and B1."""
