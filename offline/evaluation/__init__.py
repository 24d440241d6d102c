"""Judging user towers on listens that were held back: metrics with intervals, floors, who wins, and the report."""
