"""Resolution of a ViT (GRETSI 2025, Figure 2 and Table 1)."""
