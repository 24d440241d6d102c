"""A track from its file to its genre: decode -> loudness -> log-mel -> musicnn -> genre head, as its release says."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.artists import ARTIST_EMBEDDING
from models.audio.loudness import made_as_loud
from models.audio.windows import Source, WindowPlan, Windows, decode_whole, decode_windows
from models.contract import encode_taggram
from models.errors import ReleaseError
from models.features import pack_window, window_features
from models.mel import FRONT_END, MUSICNN, musicnn_log_mel
from models.musicnn import OUTPUTS, TAGS, MusicnnFeatures
from models.release import Configuration, Release
from models.tagging import Tagging

Float32 = NDArray[np.float32]

MAX_DURATION_S = 3 * 3600.0
_DIGITS = 6


class Tagger:
    """A release, loaded and ready to hear tracks one after another; about 100 MB, one thread.

        tagger = Tagger(load_release())
        tagging = tagger.tag("song.mp3")
        tagging.genre, tagging.confidence  # "reggae", 0.71; None and 0.38 where the genre head abstains
        tagging.tags[:2]                   # (("dance", 0.31), ("electronic", 0.28))

    Args:
        release: whose networks, windows and genre head are used.
        max_duration_s: longest track.

    Raises:
        ReleaseError: the release was made for another front end, or its parts do not fit together.
    """

    def __init__(self, release: Release, *, max_duration_s: float = MAX_DURATION_S) -> None:
        _check_front_end(release)
        configuration = release.configuration
        self._plan = WindowPlan(count=configuration.windows, window_s=configuration.window_s)
        self._max_duration_s = max_duration_s
        self._networks = {model: release.network(model) for model in configuration.run}
        self._head = release.genre_head()
        self._artists = release.artist_table()
        self._configuration = configuration

    def tag(self, source: Source, *, artist_id: str | None = None) -> Tagging:
        """Hear a track.

        Args:
            source: its file: a path, bytes, or an open binary file that can seek.
            artist_id: of its artist, whose vector the genre head hears where the release has one.

        Raises:
            NotAudio, Damaged, TooShort, TooLong, Silent, OSError: as models.audio.windows.decode_windows.
        """
        timings_ms: dict[str, float] = {}
        audio, heard = self._hear(source, timings_ms)
        with _timed(timings_ms, "genre"):
            features = _features(heard)
            decision = self._head.decide(self._by_window(features, artist_id))
        first = next(iter(heard))
        taggram = np.concatenate([window.taggram for window in heard[first]])
        return Tagging(
            status="abstained" if decision.genre is None else "tagged",
            genre=decision.genre,
            confidence=round(decision.confidence, _DIGITS),
            genres=tuple((genre, round(probability, _DIGITS)) for genre, probability in decision.genres),
            genres_from="tags" if decision.abstained_because == "tags" else None,
            tags=_ranked_tags(first, taggram),
            taggram=encode_taggram(taggram),
            windows={
                model: tuple(
                    pack_window(model, row, start_ms=start_ms)
                    for row, start_ms in zip(rows, audio.starts_ms, strict=True)
                )
                for model, rows in features.items()
            },
            duration_s=audio.duration_s,
            lost_s=audio.lost_s,
            timings_ms=timings_ms,
        )

    def windows(self, source: Source) -> list[dict[str, Float32]]:
        """What the networks of the release hear in each window of a track: features by their names (models.features).

        Raises:
            As `tag`.
        """
        _, heard = self._hear(source, {})
        return self._by_window(_features(heard), None)

    def _hear(self, source: Source, timings_ms: dict[str, float]) -> tuple[Windows, dict[str, list[MusicnnFeatures]]]:
        """The windows of a track, and what each network hears in the patches of each window."""
        with _timed(timings_ms, "decode"):
            audio = decode_windows(
                source, plan=self._plan, sample_rate=MUSICNN.sample_rate, max_duration_s=self._max_duration_s
            )
            waveforms = _as_loud_as_heard(self._configuration, audio.waveforms)
        with _timed(timings_ms, "log_mel"):
            log_mels = [musicnn_log_mel(waveform) for waveform in waveforms]
        with _timed(timings_ms, "network"):
            heard = {model: [network(log_mel) for log_mel in log_mels] for model, network in self._networks.items()}
        return audio, heard

    def _by_window(
        self, features: Mapping[str, Sequence[Mapping[str, Float32]]], artist_id: str | None
    ) -> list[dict[str, Float32]]:
        """The features of all networks for each window, and with them the vector of the artist where there is one."""
        of_artist = self._artists.vector(artist_id) if self._artists and artist_id else None
        more = {} if of_artist is None else {ARTIST_EMBEDDING: of_artist}
        return [
            more | {name: row[name] for row in rows for name in row} for rows in zip(*features.values(), strict=True)
        ]


def _features(heard: Mapping[str, Sequence[MusicnnFeatures]]) -> dict[str, list[dict[str, Float32]]]:
    """The features of each window by network."""
    return {model: [window_features(model, window) for window in windows] for model, windows in heard.items()}


def whole_features(release: Release, source: Source, *, max_duration_s: float = MAX_DURATION_S) -> dict[str, Float32]:
    """What musicnn's own extractor gives for a whole file, by every network of the release, without windows.

        arrays = whole_features(load_release(), "song.mp3")
        arrays["msd_taggram"].shape, arrays["mtt_tags"].shape  # (60, 50) for 3 minutes, (50,)

    Args:
        release: whose networks are used; all of them, whichever of them workers run.
        source: the file: a path, bytes, or an open binary file that can seek.
        max_duration_s: longest track.

    Returns:
        `log_mel` (frames, 96), and for each network (`mtt`, `msd`), a row per patch of 187 frames without
        overlap: `<model>_taggram` (patches, 50), `<model>_max_pool` and `<model>_mean_pool` (patches, 753),
        `<model>_penultimate` (patches, 200), and `<model>_tags` (50,), the mean of the taggram.

    Raises:
        ReleaseError: as Tagger.
        NotAudio, TooShort, TooLong, OSError: as models.audio.windows.decode_whole.
    """
    arrays = {"log_mel": whole_log_mel(release, source, max_duration_s=max_duration_s)}
    for model in release.configuration.networks:
        heard = release.network(model)(arrays["log_mel"])
        arrays |= {f"{model}_{what}": getattr(heard, what) for what in ("taggram", *OUTPUTS)}
    return arrays


def whole_log_mel(release: Release, source: Source, *, max_duration_s: float = MAX_DURATION_S) -> Float32:
    """The log-mel spectrogram of a whole file, without windows, as loud as the release hears it.

    Returns:
        (frames, 96).

    Raises:
        As whole_features.
    """
    _check_front_end(release)
    waveform = decode_whole(source, sample_rate=MUSICNN.sample_rate, max_duration_s=max_duration_s)
    return musicnn_log_mel(_as_loud_as_heard(release.configuration, [waveform])[0])


def _as_loud_as_heard(configuration: Configuration, waveforms: Sequence[Float32]) -> Sequence[Float32]:
    """The waveforms at the loudness at which the release hears."""
    lufs = configuration.loudness_lufs
    if lufs is msgspec.UNSET:
        return waveforms
    return made_as_loud(waveforms, lufs=lufs, sample_rate=configuration.sample_rate)


def _check_front_end(release: Release) -> None:
    configuration = release.configuration
    needed, offered = (configuration.front_end, configuration.sample_rate), (FRONT_END, MUSICNN.sample_rate)
    if needed != offered:
        raise ReleaseError(
            f"release {release.release_id} hears through front end {needed}, this program has {offered}; "
            "use the version of tastewave that built it, or build it again"
        )


def _ranked_tags(model: str, taggram: Float32) -> tuple[tuple[str, float], ...]:
    means: list[float] = taggram.mean(axis=0, dtype=np.float64).tolist()
    ranked = sorted(zip(TAGS[model], means, strict=True), key=lambda pair: -pair[1])
    return tuple((tag, round(mean, _DIGITS)) for tag, mean in ranked)


@contextmanager
def _timed(timings_ms: dict[str, float], stage: str) -> Generator[None]:
    started = time.perf_counter()
    yield
    timings_ms[stage] = (time.perf_counter() - started) * 1000.0
