"""The user tower: what it trains on, its networks and losses, the training, and the folder of a trained one."""
