"""Settings of jobs: a frozen struct, filled from a TOML file and from `key=value` words.

A job describes each of its settings with Meta:

    class Tasting(msgspec.Struct, frozen=True, kw_only=True):
        out: Annotated[str, Meta(description="Folder to write to.")]
        wines: Annotated[int, Meta(description="How many are tasted.", ge=1)] = 4

    load_config(Tasting, overrides=["wines=2"], out="notes")   # Tasting(out='notes', wines=2)
    [str(setting) for setting in describe_settings(Tasting)]  # ['out', 'wines=4']
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.inspect import Metadata, NoneType, StructType, Type, UnionType, type_info

from models.errors import SettingsError

Config_ = TypeVar("Config_", bound=msgspec.Struct)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting of a job.

    Attributes:
        name: `key`, or `outer.key` for a setting inside another.
        type: what it takes, without the Meta and the `| None` around it.
        default: msgspec.NODEFAULT for a setting that has to be given.
        meaning: the description of its Meta; empty where it has none.
    """

    name: str
    type: Type
    default: Any
    meaning: str

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is msgspec.NODEFAULT

    def __str__(self) -> str:
        """`key=default`, as it can be typed; `key` alone where it has none, or holds settings that have defaults."""
        if self.required or self.default is None or isinstance(self.default, msgspec.Struct):
            return self.name
        return f"{self.name}={msgspec.json.encode(self.default).decode()}"


def load_config(
    kind: type[Config_], *, toml: Path | None = None, overrides: Iterable[str] = (), **given: Any
) -> Config_:
    """A job's settings, filled from what a person gave.

    Args:
        kind: a frozen struct.
        toml: a file of settings.
        overrides: words `key=value`, which win over the file. The value is read as TOML, and as plain text where it is
            not TOML. `outer.inner=value` sets a setting inside another.
        given: settings that the command line has an argument or option for; they win over both. None means not given.

    Raises:
        SettingsError: a file that cannot be read, a key that is unknown or missing, a value that does not fit.
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
    for field in msgspec.structs.fields(kind):
        if field.required and field.encode_name not in values:
            raise SettingsError(f"{kind.__name__} needs the setting {field.encode_name}; see --help")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{kind.__name__} cannot be set so: {error}; see --help") from None


def describe_settings(kind: type[msgspec.Struct]) -> Iterator[Setting]:
    """Every setting of a job in the order of its fields; the settings inside one follow it."""
    return _describe(kind, None, "")


def _describe(kind: type[msgspec.Struct], defaults: msgspec.Struct | None, prefix: str) -> Iterator[Setting]:
    """The settings of a struct that is the default of another's field where `defaults` is given."""
    for field in msgspec.structs.fields(kind):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        default = getattr(defaults, field.name, default)
        plain, meaning = _unwrap(type_info(field.type))
        name = prefix + field.encode_name
        yield Setting(name=name, type=plain, default=default, meaning=meaning)
        if isinstance(plain, StructType):
            yield from _describe(plain.cls, default if isinstance(default, plain.cls) else None, f"{name}.")


def _unwrap(kind: Type) -> tuple[Type, str]:
    """A type without the Meta and the `| None` around it, and the description that stood in the outermost Meta."""
    if isinstance(kind, Metadata):
        plain, meaning = _unwrap(kind.type)
        return plain, (kind.extra_json_schema or {}).get("description", meaning)
    if isinstance(kind, UnionType):
        others = [one for one in kind.types if not isinstance(one, NoneType)]
        if len(others) == 1:
            return _unwrap(others[0])
    return kind, ""


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
    settings = list(describe_settings(kind))
    return next((str(each) for each in settings if isinstance(each.default, int | float | str)), f"{settings[0]}=...")
