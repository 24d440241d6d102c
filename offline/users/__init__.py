"""Where users stood in taste space at given moments."""
