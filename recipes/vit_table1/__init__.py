"""The costs in Table 1 of GRETSI 2025."""
