"""A music platform made up from a seed: its catalogue, its listeners, what they played, and the truth behind it.

Every track and every listener is a point in one latent space, and what a listener does with a track follows from the
cosine of the two. Figures measured on such a platform are plumbing: they were programmed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from msgspec import structs

from models.errors import SettingsError
from models.history import KINDS
from offline.files import check_replaceable, new_folder, write_json
from offline.progress import progress_bar
from offline.synth.catalogue import Catalogue, draw_catalogue, ids, style_centres
from offline.synth.listeners import Listeners, draw_listeners
from offline.synth.listens import Listens, draw_listens
from offline.synth.music import synthesise, write_track
from offline.synth.settings import CHAIN, DAY_MS, SynthPlatform
from offline.synth.sounds import band

CAVEAT = "Figures measured on this platform are plumbing: they were programmed in."
CONFIG = Path("truth", "config.json")
"""A file that every synthetic platform has: its settings and the caveat."""
LISTENS_PER_FILE = 1_000_000
ROW_GROUP = 32_768


@dataclass(frozen=True, kw_only=True)
class Platform:
    """A platform that was made."""

    folder: Path
    tracks: int
    users: int
    listens: int

    def lines(self) -> list[str]:
        """How large it is, and what its figures are worth."""
        size = f"{self.listens:,} listens of {self.users:,} users to {self.tracks:,} tracks"
        return [f"{self.folder}: {size}. {CAVEAT}"]


def run(settings: SynthPlatform) -> Platform:
    """Make a platform: all of it at once under its name, or nothing.

    Raises:
        SettingsError: the folder holds something else, or cannot be written to.
    """
    out = Path(settings.out)
    try:
        check_replaceable(out, str(CONFIG))
        with new_folder(out) as folder:
            _build(settings, folder)
    except (OSError, pl.exceptions.ComputeError) as error:
        raise SettingsError(
            f"the platform cannot be written to {out} ({error}); make room, or name another folder"
        ) from error
    return Platform(folder=out, tracks=settings.tracks, users=settings.users, listens=settings.listens)


def _build(settings: SynthPlatform, folder: Path) -> None:
    rng = np.random.default_rng(settings.seed)
    catalogue, listeners = draw_catalogue(settings, rng), draw_listeners(settings, rng)
    for name in ("listens", "truth"):
        (folder / name).mkdir()
    _write_tracks(settings, catalogue, folder)
    _write_truth(settings, catalogue, listeners, folder / "truth")
    with progress_bar() as bar:
        advance = partial(bar.advance, bar.add_task("Listening", total=settings.listens))
        listens = draw_listens(settings, catalogue, listeners, rng, advance=advance)
        advance = partial(bar.advance, bar.add_task("Writing listens", total=settings.listens))
        _write_listens(catalogue, listens, folder / "listens", advance=advance)
        if not settings.no_audio:
            advance = partial(bar.advance, bar.add_task("Synthesising tracks", total=settings.tracks))
            _write_audio(settings, catalogue, folder / "audio", advance=advance)


def _write_tracks(settings: SynthPlatform, catalogue: Catalogue, folder: Path) -> None:
    track = _ids("t", settings.tracks)
    style = pl.Series(CHAIN).gather(catalogue.style)
    released_ms = settings.start_ms + catalogue.released_day * DAY_MS
    pl.DataFrame(
        {
            "track_id": track,
            "artist_id": _ids("a", settings.artist_count).gather(catalogue.artist),
            "title": [*catalogue.titles().values()],
            "style": style,
            "released_at": released_ms,
            "duration_ms": catalogue.duration_ms,
            "popularity": catalogue.popularity,
            "audio": pl.Series([None] * settings.tracks, dtype=pl.String)
            if settings.no_audio
            else "audio/" + track + f".{settings.audio_format}",
        }
    ).write_parquet(folder / "tracks.parquet")


def _write_truth(settings: SynthPlatform, catalogue: Catalogue, listeners: Listeners, folder: Path) -> None:
    """What was programmed in; truth/README.md says what each column is."""
    pl.DataFrame(
        {
            "track_id": _ids("t", settings.tracks),
            "latent": catalogue.latent,
            "brightness": catalogue.brightness,
            "audio_seed": catalogue.seed,
        }
    ).write_parquet(folder / "tracks.parquet")
    pl.DataFrame(
        {
            "user_id": _ids("u", settings.users),
            "joined_at": (settings.start_ms + listeners.joined_day * DAY_MS).astype(np.int64),
            "activity": listeners.activity,
            "drift": listeners.drift,
            "early_taste": listeners.tastes[0],
            "late_taste": listeners.tastes[1],
            "early_styles": listeners.styles[0],
            "late_styles": listeners.styles[1],
        }
    ).write_parquet(folder / "users.parquet")
    pl.DataFrame({"style": CHAIN, "centre": style_centres()}).write_parquet(folder / "styles.parquet")
    readme = files("offline.synth").joinpath("truth.md").read_text()
    (folder / "README.md").write_text(readme.format(caveat=CAVEAT))
    write_json(folder / CONFIG.name, _config(settings))


def _config(settings: SynthPlatform) -> dict[str, Any]:
    """The settings that shape the platform: where it lies does not."""
    shape = structs.asdict(settings) | {"audio_format": None if settings.no_audio else settings.audio_format}
    del shape["out"], shape["no_audio"]
    return {"caveat": CAVEAT, "start_at": settings.start_ms, "config": shape}


def _write_listens(catalogue: Catalogue, listens: Listens, folder: Path, *, advance: Callable[[int], None]) -> None:
    users, tracks = _ids("u", int(listens.user.max()) + 1), _ids("t", len(catalogue.style))
    for number, first in enumerate(range(0, len(listens.at_ms), LISTENS_PER_FILE)):
        part = slice(first, first + LISTENS_PER_FILE)
        track, played_ms = listens.track[part], listens.played_ms[part]
        heard = pl.Series(played_ms >= 0)
        pl.DataFrame(
            {
                "event_id": "e" + pl.Series(np.arange(first, first + len(track))).cast(pl.String).str.zfill(10),
                "user_id": users.gather(listens.user[part]),
                "track_id": tracks.gather(track),
                "kind": pl.Series(KINDS).gather(listens.kind[part]),
                "at": listens.at_ms[part],
                "played_ms": played_ms.astype(np.int64),
                "duration_ms": catalogue.duration_ms[track],
                "excluded": listens.excluded[part],
            }
        ).with_columns(pl.when(heard).then(pl.col("played_ms", "duration_ms"))).write_parquet(
            folder / f"{number:05d}.parquet", row_group_size=ROW_GROUP
        )
        advance(len(track))


def _ids(letter: str, count: int) -> pl.Series:
    return pl.Series(ids(letter, count), dtype=pl.String)


def _write_audio(
    settings: SynthPlatform, catalogue: Catalogue, folder: Path, *, advance: Callable[[int], None]
) -> None:
    folder.mkdir()
    excerpts = [
        (folder / f"{name}.{settings.audio_format}", CHAIN[style], int(seed), float(brightness), settings.seconds)
        for name, style, seed, brightness in zip(
            _ids("t", settings.tracks), catalogue.style, catalogue.seed, catalogue.brightness, strict=True
        )
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_write_excerpt, excerpts, chunksize=4):
            advance(1)


def _write_excerpt(excerpt: tuple[Path, str, int, float, float]) -> None:
    path, style, seed, brightness, duration_s = excerpt
    waveform = synthesise(style, seed=seed, duration_s=duration_s)
    mastered = np.stack([band(side, high_hz=4000.0 * 3.0**brightness) for side in waveform.T], axis=1)
    write_track(path, mastered * np.float32(0.9 / np.abs(mastered).max()))
