"""Steps of the fit of a tissue model: signal, bounds, starts, iterations, and the way of each engine to the minimum."""
