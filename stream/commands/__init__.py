"""The commands that operators type: one module for each, and what several of them share."""
