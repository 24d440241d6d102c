"""Users' embeddings in Feast's online store on Redis, in an environment of its own: milliseconds of each read.

Called by bench.py reader: python feast_users.py REDIS USERS AT_ONCE READS FOLDER
"""

import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32

DIM = 40


def main(address: str, users: int, at_once: int, reads: int, folder: Path) -> None:
    config = RepoConfig(
        project="bench", provider="local", registry=str(folder / "registry.db"), entity_key_serialization_version=3,
        online_store={"type": "redis", "connection_string": address}, offline_store={"type": "dask"},
    )  # fmt: skip
    store = FeatureStore(config=config)
    rng = np.random.default_rng(0)
    ids = [f"user-{number}" for number in range(users)]
    frame = pd.DataFrame(
        {
            "user_id": ids,
            "embedding": list(rng.standard_normal((users, DIM), np.float32)),
            "at": datetime.now(UTC),
        }
    )
    frame.head(1).to_parquet(folder / "users.parquet")
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    source = FileSource(path=str(folder / "users.parquet"), timestamp_field="at")
    view = FeatureView(
        name="users", entities=[user], ttl=timedelta(days=1), source=source,
        schema=[Field(name="embedding", dtype=Array(Float32))],
    )  # fmt: skip
    store.apply([user, view])
    store.write_to_online_store("users", frame)
    took = []
    for _ in range(reads):
        rows = [{"user_id": ids[number]} for number in rng.integers(0, users, at_once)]
        began = time.perf_counter()
        vectors = store.get_online_features(features=["users:embedding"], entity_rows=rows).to_dict()["embedding"]
        took.append((time.perf_counter() - began) * 1000)
        assert len(vectors[0]) == DIM
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
