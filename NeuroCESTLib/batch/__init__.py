"""The frame of the batch commands: arguments, exit status, output folders and progress."""
