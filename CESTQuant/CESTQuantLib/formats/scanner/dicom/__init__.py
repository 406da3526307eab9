"""DICOM series: which there are in a folder, their images as volumes, and what is known of their protocol."""
