"""A catalogue's features, computed once and kept as sealed shards."""
