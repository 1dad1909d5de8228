"""The algorithms that a search can name, and the user's class that they work on."""
