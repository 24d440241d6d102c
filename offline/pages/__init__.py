"""Pages of results that fetch nothing: their style, their charts, and how figures are written."""
