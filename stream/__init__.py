"""How a model is used on events: the Faust app and its agents, fetching, the Redis store, health, the commands."""
