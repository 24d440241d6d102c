"""The README says what the code does: its settings table is that of the Settings."""

from pathlib import Path

from pydantic import SecretStr

from stream.settings import SECTIONS

README = Path(__file__).parents[2] / "README.md"

SETTINGS = [
    (variable, kind.model_fields[name]) for kind in SECTIONS.values() for name, variable in kind.variables().items()
]


def settings_table() -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for variable, field in SETTINGS:
        default = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, tuple):
            default = ",".join(default)
        if isinstance(default, bool):
            default = str(default).lower()
        if isinstance(default, float):
            default = f"{default:g}"
        shown = f"`{default}`" if default not in (None, "") else ""
        rows.append(f"| `{variable}` | {shown} | {field.description} |")
    return "\n".join(rows)


def test_the_settings_table_of_the_readme_is_that_of_the_settings() -> None:
    assert settings_table() in README.read_text(), f"put this into the README:\n{settings_table()}"
