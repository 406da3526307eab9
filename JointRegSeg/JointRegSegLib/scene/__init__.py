"""The scene layer of JointRegSeg: studies from nodes, results to nodes, and reports."""
