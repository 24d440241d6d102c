import re
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta
from msgspec.inspect import IntType

from models.errors import SettingsError
from offline.config import describe_settings, load_config

Count = Annotated[int, Meta(ge=1)]


class Inner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    share: Annotated[float, Meta(description="Of all listens.", ge=0.0, le=1.0)] = 0.5


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What can be set."""

    log: Annotated[str, Meta(description="What is read.")]
    steps: Annotated[Count, Meta(description="At most, of all.")] = 10
    kind: Literal["a", "b"] = "a"
    rates: tuple[float, ...] = (0.1, 0.2)
    inner: Annotated[Inner, Meta(description="Which listens count.")] = Inner(share=0.25)


class Optional(msgspec.Struct, frozen=True, kw_only=True):
    outside: Annotated[int | None, Meta(description="Meta around the choice.")] = None
    within: Annotated[int, Meta(description="Meta within the choice.")] | None = None
    inner: Annotated[Inner | None, Meta(description="Settings, or none.")] = None
    words: dict[str, str] = {}


def test_words_win_over_the_file_and_the_command_line_over_both(tmp_path):
    (tmp_path / "job.toml").write_text('log = "file"\nsteps = 3\nrates = [1, 2]\n[inner]\nshare = 0.25\n')
    job = load_config(Job, toml=tmp_path / "job.toml", overrides=["steps=7", "kind=b", "inner.share=0.75"], log="x")
    assert job == Job(log="x", steps=7, kind="b", rates=(1.0, 2.0), inner=Inner(share=0.75))


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


def test_a_setting_that_is_a_struct_already_is_taken_as_it_is():
    assert load_config(Job, log="x", inner=Inner(share=0.75)).inner == Inner(share=0.75)


def test_a_word_that_is_no_setting_is_answered_with_one_that_can_be_typed():
    class Folder(msgspec.Struct, frozen=True, kw_only=True):
        out: str | None = None

    class Switch(msgspec.Struct, frozen=True, kw_only=True):
        out: str
        quick: bool = True

    for kind, example in ((Folder, "out=..."), (Switch, "quick=true")):
        with pytest.raises(SettingsError, match=rf"write key=value, for example {re.escape(example)}$"):
            load_config(kind, overrides=["--quick"])


def test_settings_are_described_by_their_meta():
    settings = {setting.name: setting for setting in describe_settings(Job)}
    shown = {name: (str(setting), setting.meaning, setting.required) for name, setting in settings.items()}
    assert shown == {
        "log": ("log", "What is read.", True),
        "steps": ("steps=10", "At most, of all.", False),
        "kind": ('kind="a"', "", False),
        "rates": ("rates=[0.1,0.2]", "", False),
        "inner": ("inner", "Which listens count.", False),
        "inner.share": ("inner.share=0.25", "Of all listens.", False),
    }


def test_optional_settings_are_described_too():
    settings = [(str(setting), setting.meaning, setting.required) for setting in describe_settings(Optional)]
    assert settings == [
        ("outside", "Meta around the choice.", False),
        ("within", "Meta within the choice.", False),
        ("inner", "Settings, or none.", False),
        ("inner.share=0.5", "Of all listens.", False),
        ("words={}", "", False),
    ]


def test_the_type_of_a_setting_comes_without_what_stands_around_it():
    types = {setting.name: setting.type for setting in describe_settings(Optional)}
    assert isinstance(types["outside"], IntType)
    assert isinstance(types["within"], IntType)
    assert next(setting.type for setting in describe_settings(Job) if setting.name == "steps") == IntType(ge=1)
