"""The methods that turn spectra into maps, one file per family, and the registry that lists them."""
