"""Lower resolution inside a CNN: reduction after the first convolution."""
