"""Images of a study: modalities, labels, reading, masks, normalisation and the working grid."""
