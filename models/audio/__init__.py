"""A music file -> windows of waveform: `windows` is the way in, `decoders` picks a decoder, `silence` finds sound."""
