"""Checking a network before it is pruned: does Torch-Pruning map its channels rightly, and does a pruned copy run?"""
