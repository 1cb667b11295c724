"""Builds the parts of a run from its options: networks with their weights, averages, optimizers, the evaluator."""
