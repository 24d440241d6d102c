"""The audio files in a folder, for the commands that take folders."""

from __future__ import annotations

from pathlib import Path

from models.errors import SettingsError


def audio_in(folder: Path) -> list[Path]:
    """The files with an audio suffix at any depth, sorted; none that is hidden, or in a hidden folder.

    Raises SettingsError where there is none.
    """
    from models.audio.windows import SUFFIXES  # late, since it imports numpy

    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in SUFFIXES and not _hidden(file.relative_to(folder)) and file.is_file()
    ]
    if not files:
        raise SettingsError(f"{folder} holds no audio file; name the files, or a folder of them")
    return files


def _hidden(path: Path) -> bool:
    """`._a.mp3` is what macOS leaves beside a.mp3 on foreign disks: no audio, in spite of its suffix."""
    return any(part.startswith(".") for part in path.parts)
