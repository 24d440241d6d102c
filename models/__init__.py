"""What offline and stream must agree on: events and keys, waveform to genre, the release and its reader."""
