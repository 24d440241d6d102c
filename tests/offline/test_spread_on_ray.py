"""On a real cluster of two nodes on loopback, without dashboard and telemetry."""

import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.progress import Progress

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before Ray is imported: it would tell its makers of each cluster

from ray.cluster_utils import Cluster

from models.errors import SettingsError
from offline.features.extract import hearing_of, run
from offline.features.hear import Wanted
from offline.features.settings import Features
from offline.features.store import open_store
from offline.spread import spread
from offline.users import embed
from offline.users.settings import EmbedUsers
from tests.conftest import TowerOf
from tests.offline.features.dying import HangingHearing
from tests.offline.interactions.random_listens import NOON
from tests.offline.small_works import Work, shards
from tests.offline.test_spread import notes, sums, wait_for
from tests.platform.music import write_music

# On loopback; Ray would take 127.0.0.1 for the machine's own address.
NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    # In tmp_path, the names of its sockets would be too long.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            yield cluster
        finally:
            cluster.shutdown()


def test_a_node_that_dies_in_the_middle_loses_nothing_and_nothing_is_there_twice(tmp_path: Path, cluster: Any) -> None:
    (tmp_path / "notes").mkdir()
    node = cluster.add_node(**NODE)
    cluster.wait_for_nodes(timeout=60)
    killer = threading.Thread(target=_kill_in_the_middle, args=(tmp_path, cluster, node))
    killer.start()
    given_up = spread(
        Work(tmp_path / "notes", "waits_after_the_first"),
        shards(8),
        out=tmp_path / "out",
        progress=Progress(disable=True),
        label="Adding",
        ray=cluster.address,
    )
    killer.join()
    assert given_up == []
    assert sums(tmp_path) == {f"{number:02d}": str(number + 10) for number in range(8)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{number:02d}" for number in range(8)}
    begun = Counter(path.name.split("-")[1] for path in notes(tmp_path, "begun"))
    assert sorted(begun.values()) == [1] * 7 + [2]  # only what the node had in hand was begun again


def test_features_are_the_same_on_ray_as_by_processes(tmp_path: Path, cluster: Any) -> None:
    (tmp_path / "music").mkdir()
    for number in range(2):
        write_music(tmp_path / "music" / f"{number}.wav", seed=number)
    stores = []
    for name, where in {"here": {"processes": 1}, "on-ray": {"ray": cluster.address}}.items():
        out = tmp_path / name
        run(Features(catalogue=str(tmp_path / "music"), out=str(out), tracks_per_shard=1, networks=(), **where))
        stores.append(open_store(out))
    for track_id in ("0.wav", "1.wav"):
        here, on_ray = (store.log_mel(track_id, 0) for store in stores)
        assert len(here) > 100
        assert np.array_equal(here, on_ray)


def test_a_file_that_hangs_on_ray_ends_with_its_process_and_is_given_up(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline.spread.MOST_DEATHS", 1)  # each takes a new process
    hearing, _ = hearing_of(Features(catalogue="none", out="none", networks=(), max_file_s=0.2))
    hangs = HangingHearing(**{field.name: getattr(hearing, field.name) for field in fields(hearing)})
    (tmp_path / "endless.wav").write_bytes(b"x")
    given_up = spread(
        hangs,
        {"000000": [Wanted(str(tmp_path / "endless.wav"), "1 1")]},
        out=tmp_path / "out",
        progress=Progress(disable=True),
        label="Hearing",
        ray=cluster.address,
    )
    assert given_up == ["000000"]


def test_users_are_embedded_on_ray_as_by_processes(tmp_path: Path, cluster: Any, tower_of: TowerOf) -> None:
    tower = tower_of([f"t{number}" for number in range(8)], history=6)
    listens = {"user_id": ["ann", "bob", "ann"], "track_id": ["t1", "t2", "t3"], "at": [NOON, NOON + 1, NOON + 2]}
    pl.DataFrame(listens).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame(listens).select("user_id", "at").write_parquet(tmp_path / "moments.parquet")
    found = []
    for name, where in {"here": {"processes": 1}, "on-ray": {"ray": cluster.address}}.items():
        paths = {part: str(tmp_path / f"{part}.parquet") for part in ("log", "moments")}
        settings = EmbedUsers(**paths, out=str(tmp_path / name), release=str(tower), **where)
        found.append(pl.read_parquet(embed.run(settings).out))
    assert found[0]["listens"].to_list() == [1, 2, 1]
    assert found[0].equals(found[1])


def _kill_in_the_middle(folder: Path, cluster: Any, node: Any) -> None:
    """Where both nodes have a shard in hand and one is sealed, kill a node; then let the shards end."""
    wait_for(lambda: len(notes(folder, "begun")) == 3 and sums(folder))
    cluster.remove_node(node, allow_graceful=False)
    (folder / "notes" / "go").touch()


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"the Ray cluster 127\.0\.0\.2:1 cannot be used"):
        spread(
            Work(tmp_path),
            shards(1),
            out=tmp_path / "out",
            progress=Progress(disable=True),
            label="Adding",
            ray="127.0.0.2:1",
        )
