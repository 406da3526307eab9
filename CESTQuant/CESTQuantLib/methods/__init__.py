"""The methods that turn spectra into maps, one file per family, and the registry that lists them.

Nothing here imports torch before a method runs, because the panel and the command line list the methods at their
start, when torch is slow to load or not even installed.
"""
