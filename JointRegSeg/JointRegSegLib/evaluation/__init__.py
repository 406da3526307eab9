"""Evaluation of weights on labelled cases."""
