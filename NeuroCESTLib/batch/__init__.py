"""The frame of the batch commands: arguments, exit status, warnings and output folders."""
