"""Tasks on single studies over one encoder: configuration, data, network, training, evaluation and prediction."""
