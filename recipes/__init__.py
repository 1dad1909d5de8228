"""Recipes that reproduce the papers' comparisons; each is a command: ``python -m recipes.NAME --help``."""
