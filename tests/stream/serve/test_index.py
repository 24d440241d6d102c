"""VectorIndex against numpy: whatever was put, replaced, removed and rebuilt, in whatever order."""

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.serve import index as module
from stream.serve.index import VectorIndex

DIM = 8


def vectors_of(seed: int, count: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Model:
    """What the index should hold, searched by numpy."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[NDArray[np.float32], int]] = {}

    def best(self, query, *, label, leave_out) -> dict[int, float]:
        """All rows that a search may find, with their scores."""
        return {
            row: float(vector @ query)
            for row, (vector, its) in self.held.items()
            if row not in leave_out and label in (None, its)
        }


rows = st.lists(st.integers(0, 100) | st.integers(0, 300), min_size=10, max_size=40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), rows, st.integers(0, 2**32 - 1)),
        st.tuples(st.just("remove"), rows, st.just(0)),
        st.tuples(st.just("rebuild"), st.just([]), st.just(0)),
    ),
    min_size=4,
    max_size=12,
)


@pytest.fixture(autouse=True)
def few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few cells that each search visits all of them: then its answers are exact but for the 16-bit scalars."""
    monkeypatch.setattr(module, "CELLS", 2)
    monkeypatch.setattr(module, "_FEW", 20)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, seed=st.integers(0, 1000))
def test_a_search_finds_what_numpy_finds(steps, seed: int) -> None:
    index, model = VectorIndex(DIM, flat_up_to=25), Model()
    for what, of, vector_seed in steps:
        if what == "put":
            vectors, labels = vectors_of(vector_seed, len(of)), np.array(of) % 2
            index.put(of, vectors, labels=labels)
            model.held |= {row: (vector, row % 2) for row, vector in zip(of, vectors, strict=True)}
        elif what == "remove":
            index.remove(of)
            for row in of:
                model.held.pop(row, None)
        else:
            index.rebuild()
        assert len(index) == len(model.held)
    chance = np.random.default_rng(seed)
    for query in vectors_of(seed, 30):
        k, label = int(chance.choice([1, 3, 10, 30])), [None, 0, 1, 9][chance.integers(4)]
        leave_out = chance.integers(0, 400, chance.integers(0, 40)).tolist() if chance.random() < 0.7 else []
        found = index.search(query, k, label=label, leave_out=leave_out)
        wanted = model.best(query, label=label, leave_out=leave_out)
        assert len(found.rows) == len(set(found.rows.tolist())) == min(k, len(wanted))
        assert sorted(found.scores, reverse=True) == list(found.scores)
        np.testing.assert_allclose(found.scores, sorted(wanted.values(), reverse=True)[:k], atol=3e-3)
        np.testing.assert_allclose(found.scores, [wanted[row] for row in found.rows.tolist()], atol=3e-3)
    sample = index.sample(1000)
    assert sample.rows.tolist() == sorted(model.held)
    assert sample.labels.tolist() == [model.held[row][1] for row in sorted(model.held)]
    assert set(index.sample(5).rows.tolist()) <= set(model.held)
    for row, vector in zip(sample.rows.tolist(), sample.vectors, strict=True):
        np.testing.assert_allclose(vector, model.held[row][0], atol=1e-3)
    for row in range(310):
        held, vector = model.held.get(row), index.vector(row)
        assert (vector is None) == (held is None)
        if held and vector is not None:
            np.testing.assert_allclose(vector, held[0], atol=1e-3)


def test_searches_see_each_row_with_one_of_its_vectors_while_others_put_remove_and_rebuild() -> None:
    """Row r has the vector of one of three seeds at a time, and rows from 400 up come and go."""
    versions = [vectors_of(seed, 500) for seed in range(3)]
    index = VectorIndex(DIM, flat_up_to=100)
    index.put(np.arange(400), versions[0][:400], labels=np.arange(400) % 2)
    stop, errors, searches = threading.Event(), [], []

    def search(seed: int) -> None:
        queries = vectors_of(seed, 50)
        try:
            while not stop.is_set():
                for query in queries:
                    found = index.search(query, 10, label=seed % 2, leave_out=[seed])
                    assert len(found.rows) >= 9  # one that is replaced meanwhile may be found twice, and count once
                    assert len(set(found.rows.tolist())) == len(found.rows)
                    assert seed not in found.rows
                    assert set((found.rows % 2).tolist()) == {seed % 2}
                    scores = np.array([version[found.rows] @ query for version in versions])
                    assert (np.abs(scores - found.scores).min(axis=0) < 3e-3).all()
                searches.append(seed)
        except BaseException as error:  # noqa: BLE001 - the test shows it
            errors.append(error)

    def rebuild() -> None:
        try:
            while not stop.is_set():
                index.rebuild()
        except BaseException as error:  # noqa: BLE001 - the test shows it
            errors.append(error)

    threads = [threading.Thread(target=search, args=(10,)), threading.Thread(target=search, args=(11,))]
    threads.append(threading.Thread(target=rebuild))
    for thread in threads:
        thread.start()
    chance = np.random.default_rng(7)
    while not errors and len(searches) < 20:
        rows = chance.permutation(500)[:30]
        index.put(rows, versions[chance.integers(3)][rows], labels=rows % 2)
        index.remove(np.arange(400, 500)[chance.random(100) < 0.3])
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_rebuild_is_due_when_there_are_many_vectors_and_when_the_tail_has_grown(monkeypatch) -> None:
    monkeypatch.setattr(module, "_LEAST_TAIL", 50)
    index = VectorIndex(DIM, flat_up_to=100)
    index.put(np.arange(100), vectors_of(0, 100))
    assert not index.rebuild_due
    index.put([100], vectors_of(1, 1))
    assert index.rebuild_due
    index.rebuild()
    assert not index.rebuild_due
    index.put(np.arange(51), vectors_of(2, 51))
    assert index.rebuild_due
    index.rebuild()
    index.remove(np.arange(60))
    assert index.rebuild_due  # most of what the cells hold is gone
    index.rebuild()
    assert not index.rebuild_due
    assert len(index) == 41
    assert index.nbytes < 100_000


def test_of_the_ten_nearest_among_many_nearly_all_are_found_with_and_without_a_label(monkeypatch) -> None:
    monkeypatch.setattr(module, "CELLS", 256)
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((200, 16))[chance.integers(0, 200, 20_000)] + chance.normal(0, 0.5, (20_000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index = VectorIndex(16, flat_up_to=1000)
    index.put(np.arange(20_000), vectors, labels=np.arange(20_000) % 2)
    index.rebuild()
    monkeypatch.setattr(module, "VISITED", ((1.0, 32), (0.0, 48)))  # the shares of 1024 cells
    for label, among in ((None, np.arange(20_000)), (1, np.arange(1, 20_000, 2))):
        found = 0
        for query in vectors[:50]:
            best = among[np.argsort(-(vectors[among] @ query))[:10]]
            found += len(np.intersect1d(index.search(query, 10, label=label).rows, best))
        assert found >= 0.95 * 500


def test_vectors_that_are_replaced_again_and_again_take_no_more_memory(monkeypatch) -> None:
    monkeypatch.setattr(module, "_LEAST_TAIL", 500)
    index = VectorIndex(DIM, flat_up_to=1000)
    sizes = []
    for seed in range(100):
        index.put(np.arange(100), vectors_of(seed, 100))
        if index.rebuild_due:
            index.rebuild()
        sizes.append(index.nbytes)
    assert max(sizes) == max(sizes[:20])
    assert len(index) == 100


def test_vectors_of_other_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows need as many vectors of 8"):
        VectorIndex(DIM).put([0, 1], np.zeros((2, 9)))
