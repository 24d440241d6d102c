"""Ranking the whole catalogue for examples of a split: what training validates with and evaluation judges with."""
