"""How a model is made: converting networks, training, evaluation, building a release, synthetic material."""
