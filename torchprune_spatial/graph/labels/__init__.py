"""Following channels through one forward pass: labels beside tensors, and what operations do to them."""
