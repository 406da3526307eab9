"""The joint network: blocks, encoder, heads, configuration, weights files and number formats."""
