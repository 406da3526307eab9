"""What a head of the network is trained for: target, loss and metrics, one file per task."""
