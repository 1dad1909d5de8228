"""The joint search of pruning and resolution."""
