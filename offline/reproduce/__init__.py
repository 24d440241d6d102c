"""Running the protocol of Chen & Liang on GTZAN and FMA-small, with the controls that tell what its figures mean."""
