"""Updates of the weights of a network in training: number format, optimiser and moving average."""
