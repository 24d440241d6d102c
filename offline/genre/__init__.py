"""The genre head: labelled taggrams, training (`settings`, `machine`, `calibration`, `train`) and scoring."""
