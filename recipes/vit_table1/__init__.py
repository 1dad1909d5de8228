"""Table 1 of GRETSI 2025: what its networks cost."""
