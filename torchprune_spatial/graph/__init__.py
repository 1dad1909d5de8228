"""Torch-Pruning's dependency graph, read: groups of channels, outputs of the network, attention heads."""
