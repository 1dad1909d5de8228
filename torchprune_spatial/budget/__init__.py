"""Pruning to a budget: limits, the search for the ratio, and how the budget is spread over the layers."""
