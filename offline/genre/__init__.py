"""Training and scoring the genre head."""
