"""A music file -> windows of waveform: `windows` is the way in, `decoders` chooses who decodes, `silence` what counts."""
