"""Judging user towers on listens that were held back, and the report about it."""
