"""The report on the tumour compartments of one patient: one HTML page with pictures, tables, checks and methods."""
