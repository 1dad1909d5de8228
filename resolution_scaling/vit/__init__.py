"""Lower resolution of vision transformers: token grids and patch sizes."""
