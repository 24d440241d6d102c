"""The live release in the process of the HTTP API: its taste space to search, and what becomes of it."""
