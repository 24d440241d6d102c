"""Broken and hostile audio files as strangers send them, and what a worker may answer to each.

`corpus.corpus` gives all of them. A new one belongs to the module of its kind; what fuzzing finds, to `findings`.
"""
