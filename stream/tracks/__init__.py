"""The agent for uploaded tracks."""
