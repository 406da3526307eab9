"""The batch commands of ``jointregseg``: arguments and files in, files out; the work is done by the Logic."""
