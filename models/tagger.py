"""A track from its file to its genre and its place in taste space, as its release says.

decode -> loudness -> log-mel -> musicnn -> genre head; and the audio encoders, whose vectors the head may hear as well,
as it may that of the track's artist.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.artists import ARTIST_EMBEDDING
from models.audio.loudness import gain_to, made_as_loud
from models.audio.windows import Source, WindowPlan, Windows, decode_whole, decode_windows
from models.audio_encoder import AudioEncoder
from models.contract import encode_taggram
from models.errors import ReleaseError
from models.features import EMBEDDING, embedding_of, pack_window, window_features
from models.mel import FRONT_END, MUSICNN, musicnn_log_mel
from models.musicnn import OUTPUTS, TAGS, MusicnnFeatures
from models.release import Configuration, Release
from models.tagging import DIGITS, Tagging

Float32 = NDArray[np.float32]

MAX_DURATION_S = 3 * 3600.0


class Heard(NamedTuple):
    """What was heard in a track.

    Attributes:
        audio: its windows.
        patches: of each musicnn network what it heard in the patches of each window.
        features: of each musicnn network the features of each window (models.features).
        vectors: of each audio encoder, by the name of its feature, (windows, dim).
    """

    audio: Windows
    patches: dict[str, list[MusicnnFeatures]]
    features: dict[str, list[dict[str, Float32]]]
    vectors: dict[str, Float32]

    def windows(self) -> list[dict[str, Float32]]:
        """The features of each window by their names, those of networks and of encoders."""
        vectors = ([{name: row} for row in rows] for name, rows in self.vectors.items())
        rows = zip(*self.features.values(), *vectors, strict=True)
        return [{name: value for part in parts for name, value in part.items()} for parts in rows]


class TrackHearing:
    """How a release hears tracks, without a genre head: its windows, loudness and musicnn networks; one thread.

        hearing = TrackHearing(load_release())
        hearing("song.mp3").windows()[0]["msd.max_pool"].shape  # (753,)

    Args:
        release: whose networks, windows and loudness are used.
        encoders: audio encoders that hear the same windows, by the names of their features (encoders_by_feature).
        max_duration_s: longest track.

    Raises:
        ReleaseError: the release was made for another front end, or a network cannot be loaded.
    """

    def __init__(
        self,
        release: Release,
        *,
        encoders: Mapping[str, AudioEncoder] = MappingProxyType({}),
        max_duration_s: float = MAX_DURATION_S,
    ) -> None:
        _check_front_end(release)
        self._configuration = release.configuration
        self._plan = WindowPlan(count=self._configuration.windows, window_s=self._configuration.window_s)
        self._max_duration_s = max_duration_s
        self._networks = {model: release.network(model) for model in self._configuration.run}
        self._encoders = encoders
        self._further_rates = {one.sample_rate for one in encoders.values()} - {MUSICNN.sample_rate}

    def __call__(self, source: Source, *, timings_ms: dict[str, float] | None = None) -> Heard:
        """Hear a track.

        Args:
            source: as Tagger.tag takes it.
            timings_ms: gets the time taken by decode, log_mel, network, and encoder where there are encoders.

        Raises:
            As Tagger.tag.
        """
        timings_ms = {} if timings_ms is None else timings_ms
        with _timed(timings_ms, "decode"):
            audio = decode_windows(
                source,
                plan=self._plan,
                sample_rate=MUSICNN.sample_rate,
                max_duration_s=self._max_duration_s,
                further_rates=self._further_rates,
            )
            waveforms = _at_rates_as_heard(self._configuration, audio)
        with _timed(timings_ms, "log_mel"):
            log_mels = [musicnn_log_mel(waveform) for waveform in waveforms[MUSICNN.sample_rate]]
        with _timed(timings_ms, "network"):
            patches = {model: [network(log_mel) for log_mel in log_mels] for model, network in self._networks.items()}
            features = {
                model: [window_features(model, window) for window in windows] for model, windows in patches.items()
            }
        vectors: dict[str, Float32] = {}
        if self._encoders:
            with _timed(timings_ms, "encoder"):
                vectors = {name: encoder(waveforms[encoder.sample_rate]) for name, encoder in self._encoders.items()}
        return Heard(audio, patches, features, vectors)


def encoders_by_feature(
    audio_encoder: AudioEncoder | None, blocks: Mapping[str, AudioEncoder]
) -> dict[str, AudioEncoder]:
    """Audio encoders by the names of the features that they give (models.features).

    Args:
        audio_encoder: that of a release.
        blocks: the further networks by their names.
    """
    of_blocks = {embedding_of(name): block for name, block in blocks.items()}
    return of_blocks | ({EMBEDDING: audio_encoder} if audio_encoder else {})


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
        configuration = release.configuration
        self._encoder = release.audio_encoder()
        encoders = encoders_by_feature(self._encoder, release.blocks())
        self._hearing = TrackHearing(release, encoders=encoders, max_duration_s=max_duration_s)
        self._head = release.genre_head()
        self._artists = release.artist_table()
        self._items = release.user_tower().items if configuration.user_tower is not msgspec.UNSET else None
        self._encoder_hashes = release.encoder_hashes_by_feature
        self._configuration = configuration

    @property
    def dim(self) -> int | None:
        """Dimensions of the taste space of the release; None where it has none."""
        return self._configuration.embedding_dim

    @property
    def genre_shares(self) -> dict[str, float]:
        """Share of each genre among the tracks that the genre head was trained on (GenreHead.shares)."""
        return self._head.shares()

    def tag(self, source: Source, *, track_id: str | None = None, artist_id: str | None = None) -> Tagging:
        """Hear a track.

        Args:
            source: its file: a path, bytes, or an open binary file that can seek.
            track_id: by which the user tower of the release may know it; then its embedding is the one that was
                learned.
            artist_id: of its artist, whose vector the genre head hears where the release has one.

        Raises:
            NotAudio, Damaged, TooShort, TooLong, Silent, OSError: as models.audio.windows.decode_windows.
            ReleaseError: an audio encoder of the release gives no numbers, or the genre head lacks an input.
        """
        timings_ms: dict[str, float] = {}
        heard = self._hearing(source, timings_ms=timings_ms)
        of_artist = self._artists.vector(artist_id) if self._artists and artist_id else None
        with _timed(timings_ms, "genre"):
            more = {} if of_artist is None else {ARTIST_EMBEDDING: of_artist}
            decision = self._head.decide([window | more for window in heard.windows()])
        first = next(iter(heard.patches))
        taggram = np.concatenate([window.taggram for window in heard.patches[first]])
        return Tagging(
            status="abstained" if decision.genre is None else "tagged",
            genre=decision.genre,
            confidence=round(decision.confidence, DIGITS),
            genres=tuple((genre, round(probability, DIGITS)) for genre, probability in decision.genres),
            genres_from="tags" if decision.abstained_because == "tags" else None,
            tags=_ranked_tags(first, taggram),
            taggram=encode_taggram(taggram),
            embedding=self._embedding(track_id, heard.vectors),
            windows={
                model: tuple(
                    pack_window(model, row, start_ms=start_ms, patches=len(window.taggram))
                    for row, window, start_ms in zip(rows, heard.patches[model], heard.audio.starts_ms, strict=True)
                )
                for model, rows in heard.features.items()
            },
            vectors={
                self._encoder_hashes[name]: tuple(row.astype("<f4").tobytes() for row in rows)
                for name, rows in heard.vectors.items()
            },
            duration_s=heard.audio.duration_s,
            lost_s=heard.audio.lost_s,
            timings_ms=timings_ms,
        )

    def _embedding(self, track_id: str | None, vectors: Mapping[str, Float32]) -> tuple[float, ...] | None:
        """Where a track is in taste space."""
        if self._items and track_id is not None and (row := int(self._items.rows([track_id])[0])) >= 0:
            return tuple(self._items.vectors[row].tolist())
        if self._encoder:
            return tuple(self._encoder.mean(vectors[EMBEDDING]).tolist())
        return None


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
    lufs = release.configuration.loudness_lufs
    if lufs is not msgspec.UNSET:
        (waveform,) = made_as_loud([waveform], lufs=lufs, sample_rate=MUSICNN.sample_rate)
    return musicnn_log_mel(waveform)


def _at_rates_as_heard(configuration: Configuration, audio: Windows) -> dict[int, Sequence[Float32]]:
    """The waveforms of a track's windows by their sample rate, all made louder by one gain."""
    by_rate: dict[int, Sequence[Float32]] = {audio.sample_rate: audio.waveforms, **audio.at_rates}
    lufs = configuration.loudness_lufs
    if lufs is msgspec.UNSET:
        return by_rate
    gain = gain_to(lufs, audio.waveforms, sample_rate=audio.sample_rate)
    return {rate: [waveform * gain for waveform in waveforms] for rate, waveforms in by_rate.items()}


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
    return tuple((tag, round(mean, DIGITS)) for tag, mean in ranked)


@contextmanager
def _timed(timings_ms: dict[str, float], stage: str) -> Generator[None]:
    started = time.perf_counter()
    yield
    timings_ms[stage] = (time.perf_counter() - started) * 1000.0
