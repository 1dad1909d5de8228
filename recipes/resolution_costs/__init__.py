"""Figures 1 and 2 of GRETSI 2025: what lower resolution and smaller networks cost."""
