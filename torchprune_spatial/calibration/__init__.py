"""Measurements on the user's data: batches, regions, and the one pass that takes all measurements."""
