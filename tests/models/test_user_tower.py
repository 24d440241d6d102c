import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from models.errors import ReleaseError
from models.history import CountingRule, Signal
from models.user_tower import (
    ITEM_VECTORS,
    NETWORK,
    TOWER_MANIFEST,
    ItemTable,
    encode_ids,
    load_user_tower,
    newest_known,
)
from offline.user_tower.export import export
from offline.user_tower.networks import Items, Tower
from tests.conftest import MadeOnce

IDS = ["a", "b", "bb", "c\0", "ä", "\U0001f3b5"]
GLOBAL = tuple([0.6, 0.8] + [0.0] * 38)
HISTORY = 6


@pytest.fixture(scope="module", params=["mean", "attention"])
def made(request, made_once: MadeOnce):
    torch.manual_seed(0)
    tower = Tower(request.param, dim=40, history=HISTORY, dropout=0.1)
    for weight in tower.parameters():  # what begins at zero has to count too
        torch.nn.init.normal_(weight, std=0.3)
    items = Items(torch.randn(len(IDS), 40), sparse=False)

    def make(folder):
        export(tower, items, out=folder, ids=IDS, global_embedding=GLOBAL, pooling=request.param,
               counting=CountingRule(), training={})  # fmt: skip

    return made_once(f"exported-{request.param}", make), tower.eval(), items.eval()


def test_onnx_runtime_gives_the_embeddings_of_pytorch(made):
    folder, tower, items = made
    loaded = load_user_tower(folder)
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, len(IDS), (200, 9))
    signals = rng.integers(0, len(Signal), (200, 9))
    at_ms = 1_600_000_000_000 + np.sort(rng.integers(0, 10**9, (200, 9)), axis=1)
    known, codes, ages_s, usable = newest_known(rows, signals, at_ms, history=HISTORY)
    with torch.inference_mode():
        vectors = items()[known] * (torch.from_numpy(codes) > 0)[..., None]
        wanted = tower(vectors, torch.from_numpy(codes), torch.from_numpy(ages_s)).numpy()
    embeddings = loaded.embed(rows, signals, at_ms)
    assert 100 < usable.sum() < 200
    np.testing.assert_allclose(embeddings[usable], wanted[usable], rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-5)


def test_the_network_does_not_tell_where_it_was_made(made):
    content = (made[0] / NETWORK).read_bytes()
    for told in (b".py", b"site-packages", str(Path(__file__).parents[2]).encode()):
        assert told not in content


def test_a_history_without_a_usable_listen_gets_the_global_embedding(made):
    tower = load_user_tower(made[0])
    skip, play = Signal.SKIP, Signal.PLAY
    rows = [[0, 1], [-1, -1], [0, 0], [0, -1]]
    signals = [[skip, skip], [play, play], [0, 0], [skip, play]]
    embeddings = tower.embed(rows, signals, np.ones((4, 2)))
    assert embeddings.tolist() == pytest.approx(np.array([GLOBAL] * 4), abs=1e-7)
    assert tower.embed(np.empty((1, 0)), np.empty((1, 0)), np.empty((1, 0)))[0].tolist() == pytest.approx(GLOBAL)


def test_an_embedding_knows_neither_the_clock_nor_what_is_older_than_the_history(made):
    tower = load_user_tower(made[0])
    rows, signals = np.array([[0, 1, 2, 3, 4, 5]]), np.full((1, 6), Signal.PLAY)
    at_ms = np.array([[0, 1, 2, 3, 4, 5]]) * 60_000
    embedding = tower.embed(rows, signals, at_ms)
    np.testing.assert_array_equal(tower.embed(rows, signals, at_ms + 10**12), embedding)
    longer = (np.concatenate([[[5, 5]], part], axis=1) for part in (rows, signals))
    np.testing.assert_array_equal(tower.embed(*longer, np.concatenate([[[-9, -8]], at_ms], axis=1)), embedding)


def test_unknown_tracks_leave_no_gap(made):
    tower = load_user_tower(made[0])
    plays = [[Signal.PLAY] * 3]
    with_gap = tower.embed([[0, -1, 1]], plays, [[1000, 2000, 3000]])
    np.testing.assert_array_equal(with_gap, tower.embed([[-1, 0, 1]], plays, [[0, 1000, 3000]]))


def test_what_says_nothing_takes_no_place_in_a_history(made):
    tower = load_user_tower(made[0])
    history = tower.manifest.history
    rng = np.random.default_rng(3)
    rows = rng.integers(0, len(IDS), (1, history + 5))
    at_ms = np.sort(rng.integers(0, 10**9, rows.shape), axis=1)
    signals = np.full(rows.shape, Signal.PLAY)
    signals[0, [2, 7, history, history + 1]] = Signal.NONE
    says = signals[0] > 0
    plain = tower.embed(rows[:, says], signals[:, says], at_ms[:, says])
    np.testing.assert_array_equal(tower.embed(rows, signals, at_ms), plain)


def test_a_long_unknown_id_does_not_copy_the_table(made):
    ids = encode_ids([f"{number:022d}" for number in range(100_000)])
    items = ItemTable(ids, np.zeros((len(ids), 1), np.float32))
    tracemalloc.start()
    assert items.rows(["x" * 256, f"{99_999:022d}"]).tolist() == [-1, 99_999]
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_items_are_found_by_their_ids_and_stay_on_the_disk(made):
    tower = load_user_tower(made[0])
    assert tower.items.rows([*reversed(IDS), "c", "", "zz"]).tolist() == [5, 4, 3, 2, 1, 0, -1, -1, -1]
    assert [tower.items.track_id(row) for row in range(len(IDS))] == IDS
    assert isinstance(tower.items.vectors.base, np.memmap)
    assert len(tower.items) == len(IDS)


def test_ids_in_bytes_are_found_too_however_many_are_asked_for(made, monkeypatch):
    monkeypatch.setattr("models.user_tower._ROWS_REMEMBERED", 3)
    items = load_user_tower(made[0]).items
    asked = [*IDS, "c", "", "zz", "x" * 256, *IDS]
    for part in (asked, asked[:2], asked[1:4], asked):
        assert items.rows_of([track_id.encode() for track_id in part]).tolist() == items.rows(part).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / NETWORK).unlink(), "tower.onnx is missing"),
        (
            lambda folder: (folder / ITEM_VECTORS).write_bytes(b"x"),
            "item_vectors.npy is not the file",
        ),
        (lambda folder: (folder / TOWER_MANIFEST).write_text("{"), "cannot be read"),
        (
            lambda folder: (folder / TOWER_MANIFEST).write_text(
                (folder / TOWER_MANIFEST).read_text().replace('"tower.onnx"', '"other.onnx"')
            ),
            "does not list tower.onnx",
        ),
        (lambda folder: (folder / TOWER_MANIFEST).unlink(), "has no readable tower.json"),
        (
            lambda folder: (folder / TOWER_MANIFEST).write_text(
                (folder / TOWER_MANIFEST).read_text().replace('"items": 6', '"items": 7')
            ),
            r"has \(6,\) ids and \(6, 40\) vectors, its manifest says 7 of 40",
        ),
    ],
)
def test_a_damaged_tower_is_refused_in_one_sentence(made, tmp_path, change, message):
    for path in made[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path)
    with pytest.raises(ReleaseError, match=message):
        load_user_tower(tmp_path)


def test_a_tower_at_a_url_is_copied_and_gives_the_same_embeddings(made):
    memory = fsspec.filesystem("memory")
    memory.put(str(made[0]), f"/towers/{made[0].name}", recursive=True)
    listens = [[0, 1]], [[Signal.PLAY] * 2], [[0, 60_000]]
    embedding = load_user_tower(f"memory://towers/{made[0].name}").embed(*listens)
    np.testing.assert_array_equal(embedding, load_user_tower(made[0]).embed(*listens))
