"""What an optimisation of a deformation is made of: levels, comparisons both ways, steps and a limit of time."""
