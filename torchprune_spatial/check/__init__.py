"""Checks of a network before it is pruned."""
