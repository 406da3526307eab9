"""The batch commands of ``cestquant``: arguments and files in, files out; the work is done by the Logic."""
