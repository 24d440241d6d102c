"""What offline and stream must agree on: events and keys, waveform to genre, the user tower, and the release."""
