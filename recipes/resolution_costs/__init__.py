"""The costs in Figures 1 and 2 of GRETSI 2025."""
