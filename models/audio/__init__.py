"""A music file -> windows of waveform: `windows` is the way in, `decoders` chooses, `sndfile` and `ffmpeg` decode."""
