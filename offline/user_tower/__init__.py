"""Training the user tower."""
