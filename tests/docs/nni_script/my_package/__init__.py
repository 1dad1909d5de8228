"""A package of the reader."""
