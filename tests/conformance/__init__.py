"""Real networks of four libraries, with random weights and small images: does Torch-Pruning prune them, do we?"""
