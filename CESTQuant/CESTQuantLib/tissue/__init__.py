"""Models of tissue and their fits: pool models, sums of Lorentzians, and methods that invert exchange contrasts."""
