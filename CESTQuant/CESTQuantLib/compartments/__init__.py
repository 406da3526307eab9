"""CEST numbers of the compartments of a tumour at one or two visits: alignment, regions, statistics and change."""
