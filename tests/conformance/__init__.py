"""Real networks of seven libraries, with random weights and small images: does Torch-Pruning prune them, do we?"""
