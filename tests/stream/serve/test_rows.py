from stream.serve import rows as module
from stream.serve.rows import Rows


def test_a_row_is_given_out_again_when_it_has_rested(monkeypatch) -> None:
    monkeypatch.setattr(module, "RESTING", 2)
    rows = Rows()
    assert [rows.add(name) for name in ("a", "b", "c", "a")] == [0, 1, 2, 0]
    assert [rows.drop(name) for name in ("a", "b", "unknown")] == [0, 1, None]
    assert rows.add("d") == 3  # two are resting
    assert rows.drop("c") == 2
    assert rows.add("e") == 0  # which has rested longest
    assert rows.add("a") == 4
    assert [rows.id(row) for row in range(rows.size)] == ["e", None, None, "d", "a"]
    assert (rows.row("c"), rows.row("e"), len(rows)) == (None, 0, 3)
