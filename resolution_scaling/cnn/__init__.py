"""CNNs at lower resolution: reduction after the first convolution (FCR), and folding its batch norm."""
