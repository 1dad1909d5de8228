"""Reading Torch-Pruning's dependency graph: groups of channels, outputs of the network, attention heads."""
