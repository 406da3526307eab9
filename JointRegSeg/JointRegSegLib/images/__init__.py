"""Images of a study: modalities, labels, reading, masks, normalization and the working grid."""
