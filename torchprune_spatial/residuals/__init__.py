"""Mixed connectivity: each branch of a residual addition keeps channels of its own."""
