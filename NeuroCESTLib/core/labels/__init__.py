"""Label maps of tumours: the compartments, and what their numbers mean in the files of data sets and tools."""
