"""Models of tissue and their fits: pool models, sums of Lorentzians, and methods that invert exchange contrasts.

The digital brain phantom and the distributions from which data sets are drawn are made of the same tissue models.
"""
