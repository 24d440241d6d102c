"""Redis: clients, and writes that are scripts of one slot, idempotent, and never go back."""
