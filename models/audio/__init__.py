"""A music file -> windows of waveform: `windows` is the way in, `sndfile` and `ffmpeg` decode, on top of `blocks`."""
