"""DICOM files: their elements and frames, the series in a folder, and what is known of the protocol of a series."""
