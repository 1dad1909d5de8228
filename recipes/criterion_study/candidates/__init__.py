"""Criteria that were tried in the study: statistics of regions by which channels can be ranked."""
