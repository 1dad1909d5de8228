"""What is measured on the user's data: batches, regions, and one pass for all measurements."""
