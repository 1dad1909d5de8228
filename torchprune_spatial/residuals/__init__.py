"""Mixed connectivity: the branches of a residual addition keep channels of their own."""
