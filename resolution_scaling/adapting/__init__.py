"""Adapting to a new resolution: image transforms, the best evaluation size, recalibration from a few batches."""
