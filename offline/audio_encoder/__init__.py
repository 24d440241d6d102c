"""Making audio encoders."""
