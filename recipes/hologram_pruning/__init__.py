"""Spatial-mask pruning of a hologram network (EGC)."""
