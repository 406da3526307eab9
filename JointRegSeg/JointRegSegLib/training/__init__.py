"""Training of the joint network: configuration, data, steps, validation, checkpoints and logs."""
