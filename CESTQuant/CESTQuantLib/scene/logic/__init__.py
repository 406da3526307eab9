"""What the logic of CESTQuant offers, by purpose: maps, spectra, compartments, acquisitions and phantoms."""
