"""How far a model fit can be trusted: noise, misfit, uncertain constants, and values that cannot be identified."""
