"""Resolution of a ResNet (GRETSI 2025, Figures 1, 3 and 4)."""
