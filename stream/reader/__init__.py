"""Reading answers from Redis, for other services in Python."""
