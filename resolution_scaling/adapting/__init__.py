"""After scaling: transforms, evaluation size, recalibration."""
