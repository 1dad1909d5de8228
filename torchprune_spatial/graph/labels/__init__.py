"""Following channels through one forward pass: labels beside tensors, and the rules by which operations move and unite them."""
