"""What the recipes share: training, criteria, command lines, claims, files."""
