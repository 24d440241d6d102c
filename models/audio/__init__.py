"""A music file -> windows of waveform. `windows` is the way in; `silence` and `loudness` judge what decoders give."""
