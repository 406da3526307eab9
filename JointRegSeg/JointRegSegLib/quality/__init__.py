"""Quality of registrations and segmentations estimated without the truth, and the verdict on them."""
