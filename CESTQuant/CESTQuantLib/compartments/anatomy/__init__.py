"""What the anatomical images say: alignment with CEST, tissue, mid-sagittal plane, and the regions of a visit."""
