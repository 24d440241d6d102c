"""Configurations of jobs: frozen structs, filled from a TOML file and `key=value` words."""

from __future__ import annotations

import ast
import inspect
import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from models.errors import SettingsError

Config_ = TypeVar("Config_", bound=msgspec.Struct)


def load_config(
    kind: type[Config_], *, toml: Path | None = None, overrides: Iterable[str] = (), **given: Any
) -> Config_:
    """A job's configuration.

    Args:
        kind: a frozen struct.
        toml: file of settings.
        overrides: `key=value`, which win over the file; the value is TOML, or text where it is none. A setting
            inside another is `outer.inner=value`.
        given: what the command line names itself, None where it does not; it wins over both.

    Raises:
        SettingsError: a file that cannot be read, a key that is unknown, a value that does not fit.
    """
    values = _read(toml) if toml else {}
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals:
            raise SettingsError(f"{word!r} is no setting; write key=value, for example {_example(kind)}")
        *outer, last = key.strip().split(".")
        place = values
        for name in outer:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise SettingsError(f"{key!r} names a setting inside {name!r}, which holds none; see --help")
        place[last] = _value(text)
    values |= {name: value for name, value in given.items() if value is not None}
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    for key in values.keys() - known:
        near = get_close_matches(key, known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
        raise SettingsError(f"{kind.__name__} has no setting {key!r}; {advice}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{kind.__name__} cannot be set so: {error}; see --help") from None


def describe_settings(kind: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of each setting: the description of its Meta, or the text after it in the source."""
    body: Any = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body[0]
    meanings = {
        ast.unparse(field.target): inspect.cleandoc(ast.literal_eval(text.value))
        for field, text in pairwise(body.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }  # fmt: skip
    for field in msgspec.structs.fields(kind):
        default = "" if field.required else msgspec.json.encode(field.default).decode()
        described = (getattr(meta, "description", None) for meta in getattr(field.type, "__metadata__", ()))
        meaning = next(filter(None, described), meanings.get(field.encode_name, ""))
        yield field.encode_name, default, " ".join(meaning.split())


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}); name a TOML file of settings") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML ({error}); write lines like key = value") from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _example(kind: type[msgspec.Struct]) -> str:
    field = next(field for field in msgspec.structs.fields(kind) if field.default is not msgspec.NODEFAULT)
    return f"{field.encode_name}={field.default}"
