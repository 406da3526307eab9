"""The numerical engine: the Bloch-McConnell equations of all pools, solved through a whole protocol."""
