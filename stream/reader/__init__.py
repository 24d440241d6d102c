"""Answers, read from Redis."""
