"""The genre head: labelled taggrams or audio, vectors of artists, training, calibration and scoring."""
