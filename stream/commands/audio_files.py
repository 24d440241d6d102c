"""The audio files in a folder, for the commands that take folders."""

from __future__ import annotations

from pathlib import Path

from models.errors import SettingsError


def audio_in(folder: Path) -> list[Path]:
    """The files with an audio suffix at any depth, sorted. Raises SettingsError where there is none."""
    from models.audio.windows import SUFFIXES  # late, since it imports numpy

    files = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not files:
        raise SettingsError(f"{folder} holds no audio file; name the files, or a folder of them")
    return files
