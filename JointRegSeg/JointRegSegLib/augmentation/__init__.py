"""Augmentation of study pairs: random changes of geometry and of intensity while a network is trained."""
