"""The scene layer of JointRegSeg: studies from nodes, results to nodes, reports, and the batch commands."""
