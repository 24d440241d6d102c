"""The agent for listens: from an event to where its user stands."""
