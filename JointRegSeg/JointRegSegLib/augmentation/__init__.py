"""Random changes of study pairs in training: spatial ones and those of intensity."""
