"""The criteria, one file each, as importances of Torch-Pruning."""
