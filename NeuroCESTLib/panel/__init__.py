"""The frame of the module panels; the only library that knows Qt."""
