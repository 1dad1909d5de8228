"""Random small networks, with a second implementation of everything: labels in plain loops, and pruning by masks."""
