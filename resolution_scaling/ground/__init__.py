"""Helpers of both packages: checks of arguments, calls and copies of networks, shapes, undoing changes, figures."""
