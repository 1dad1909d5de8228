"""Pruning and resolution searched together."""
