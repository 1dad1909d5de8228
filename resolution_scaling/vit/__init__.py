"""Vision transformers at lower resolution: token grids and patch sizes; one file for each family of models."""
