"""The README says what the code does: its settings table is that of the Settings."""

from pathlib import Path

from pydantic import SecretStr

from stream.settings import PREFIX, Settings

README = Path(__file__).parents[2] / "README.md"


def settings_table() -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
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
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows)


def test_the_settings_table_of_the_readme_is_that_of_the_settings() -> None:
    assert settings_table() in README.read_text(), f"put this into the README:\n{settings_table()}"
