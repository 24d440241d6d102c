"""What workers and operator commands must agree on about the consumer groups of workers."""

SESSION_TIMEOUT_S = 10.0
"""How long the partitions of a killed worker wait for another one, and how long it counts as a member."""
