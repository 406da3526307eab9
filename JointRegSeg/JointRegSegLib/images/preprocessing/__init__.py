"""From the volumes of a visit to a normalised tensor on an isotropic RAS grid around the brain."""
