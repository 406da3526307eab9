"""The frame of the module panels; below the module files, only this room knows Qt."""
