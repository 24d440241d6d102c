"""A music file -> windows of waveform."""
