"""What all recipes share: training, command lines, claims, files."""
