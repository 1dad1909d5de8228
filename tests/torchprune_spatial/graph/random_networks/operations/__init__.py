"""What networks are made of: each operation runs, runs under masks, and follows labels in plain loops."""
