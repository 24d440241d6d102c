from typing import Literal

import msgspec
import pytest

from models.errors import SettingsError
from offline.config import describe_settings, load_config


class Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    share: float = 0.5


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set."""

    log: str
    """What is read."""

    steps: int = 10
    """At most,
    of all."""

    kind: Literal["a", "b"] = "a"
    rates: tuple[float, ...] = (0.1, 0.2)
    inner: Inner = Inner()


def test_words_win_over_the_file_and_the_command_line_over_both(tmp_path):
    (tmp_path / "job.toml").write_text('log = "file"\nsteps = 3\nrates = [1, 2]\n[inner]\nshare = 0.25\n')
    found = load_config(Job, toml=tmp_path / "job.toml", overrides=["steps=7", "kind=b", "inner.share=0.75"], log="x")
    assert found == Job(log="x", steps=7, kind="b", rates=(1.0, 2.0), inner=Inner(share=0.75))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["step=3"], "no setting 'step'; did you mean steps"),
        (["zzz=3"], "no setting 'zzz'; there are inner, kind, log, rates, steps"),
        (["steps"], "'steps' is no setting; write key=value, for example steps=10"),
        (["steps=many"], r"Expected `int`, got `str` - at `\$.steps`"),
        (["kind=c"], "Invalid enum value 'c'"),
        (["inner.shore=1"], "unknown field `shore`"),
        (["steps.more=1"], "Expected `int`, got `object`"),
    ],
)
def test_what_cannot_be_set_is_refused(words, message):
    with pytest.raises(SettingsError, match=message):
        load_config(Job, overrides=words, log="x")


def test_a_file_that_is_no_toml_is_refused(tmp_path):
    (tmp_path / "job.toml").write_text("steps: 3")
    with pytest.raises(SettingsError, match="is no TOML"):
        load_config(Job, toml=tmp_path / "job.toml", log="x")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_config(Job, toml=tmp_path / "absent.toml", log="x")


def test_settings_are_described_by_what_stands_after_them():
    found = {name: (default, meaning) for name, default, meaning in describe_settings(Job)}
    assert found["log"] == ("", "What is read.")
    assert found["steps"] == ("10", "At most, of all.")
    assert found["rates"] == ("[0.1,0.2]", "")
