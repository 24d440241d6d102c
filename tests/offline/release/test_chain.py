from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from models.errors import SettingsError
from offline.release.chain import Chain


class Baking(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a job that takes a moment."""

    out: str
    flour: int = 1


@dataclass(frozen=True)
class Bread:
    flour: int

    def lines(self) -> list[str]:
        return [f"bread of {self.flour} kg"]


@pytest.fixture
def kitchen(tmp_path: Path):
    """Runs two steps and says which of their jobs ran."""

    def bake(*, flour: int = 1, fails: bool = False) -> list[str]:
        ran = list[str]()

        def run(settings: Baking) -> Bread:
            if fails and settings.out.endswith("second"):
                raise SettingsError("the oven is cold")
            ran.append(Path(settings.out).name)
            Path(settings.out).mkdir(exist_ok=True)
            return Bread(settings.flour)

        chain = Chain(tmp_path)
        for name, amount in (("first", flour), ("second", 5)):
            out = str(tmp_path / name)
            chain.step(name, run, Baking(out=out, flour=amount))
        assert [step.lines for step in chain.done.values()] == [(f"bread of {flour} kg",), ("bread of 5 kg",)]
        return ran

    return bake


def test_what_an_earlier_run_has_ended_is_not_done_again(kitchen):
    assert kitchen() == ["first", "second"]
    assert kitchen() == []


def test_a_step_with_other_settings_is_done_again_and_so_are_those_after_it(kitchen):
    kitchen()
    assert kitchen(flour=2) == ["first", "second"]
    assert kitchen(flour=2) == []


@pytest.mark.parametrize("harm", ["rmdir", "unlink", "damage"])
def test_a_step_whose_folder_or_note_is_gone_is_done_again_alone(kitchen, tmp_path: Path, harm: str):
    kitchen()
    if harm == "rmdir":
        (tmp_path / "first").rmdir()
    elif harm == "unlink":
        (tmp_path / "first.json").unlink()
    else:
        (tmp_path / "first.json").write_text('{"key": "')
    assert kitchen() == ["first"]


def test_after_a_failure_the_chain_goes_on_where_it_failed(kitchen, capsys):
    with pytest.raises(SettingsError, match="the oven is cold"):
        kitchen(fails=True)
    assert kitchen() == ["second"]
    said = capsys.readouterr().err
    assert "first: there already, 0 s of an earlier run\n" in said
    assert "second: done in 0 s\n  bread of 5 kg\n" in said
