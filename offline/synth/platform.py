"""A music platform made up from a seed: its catalogue, its listeners, what they played, and the truth behind it.

It reads top to bottom: what can be set, `run`, its steps. Every track and every listener is a point in one latent
space, and what a listener does with a track follows from the cosine of the two: that is the affinity. A track's
point is its style, its brightness (both can be heard), its artist's scene (which shows only in who listens) and a
little noise. Figures measured on such a platform are plumbing: they were programmed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import soundfile
from numpy.random import Generator
from numpy.typing import NDArray

from models.errors import SettingsError
from models.history import KINDS
from offline.files import check_replaceable, new_folder
from offline.progress import progress_bar
from offline.synth.music import FORMATS, synthesise, write_track
from offline.synth.sounds import band

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

CHAIN = ("classical", "jazz", "reggae", "hiphop", "disco", "country", "blues", "metal")
"""The styles of synth_audio, each a little like the next; a style's place here is its number."""
CAVEAT = "Figures measured on this platform are plumbing: they were programmed in."

DAY_MS = 86_400_000
END_MS = 1_767_225_600_000  # 2026-01-01; fixed, so that equal options give equal bytes
LISTENS_PER_FILE = 1_000_000
ROW_GROUP = 32_768
CONFIG = Path("truth", "config.json")

_PLAY, _SKIP, _LIKE, _UNLIKE, _DISLIKE, _UNDISLIKE, _PLAYLIST_ADD = (
    KINDS.index(kind) for kind in ("play", "skip", "like", "unlike", "dislike", "undislike", "playlist_add")
)
_SHORTEST_S = 120  # of the tracks
_SCENE = 7  # dimensions of an artist's scene
_BRIGHTNESS_WEIGHT = 0.6
_CHOICES = 12  # tracks that come to mind before one is chosen
_FEEDBACK_SHARE = 0.08  # of the listens: neither play nor skip
_TAKEN_BACK_SHARE = 0.02  # of the feedback: unlike and undislike
_BLOCK = 65_536  # listens worked on together: bounds the memory


@dataclass(frozen=True, kw_only=True)
class SynthPlatform:
    """What can be set; equal settings give equal bytes."""

    tracks: int = 200

    artists: int | None = None
    """Each plays one style. None: one for every eight tracks, and at least one for every style."""

    users: int = 500

    listens: int = 50_000
    """Events of all kinds, to the event."""

    days: int = 90
    """The platform's life; it ends with the year 2025."""

    seconds: float = 10.0
    """Length of each audio file, an excerpt of the track; tracks last 2 to 5 minutes."""

    audio_format: str | None = "flac"
    """One of synth_audio.FORMATS. None: no audio; the rest stays as it is."""

    seed: int = 0

    zipf: float = 0.8
    """A track's popularity is 1 / rank^this."""

    new_track_share: float = 0.3
    """Of the tracks: released on one of the days after the first, at midnight."""

    novelty: float = 4.0
    """A track is this many times more popular on the day of its release, on top; e times less every novelty_days."""
    novelty_days: float = 5.0

    new_user_share: float = 0.3
    """Of the users: join after the start."""

    session_length: float = 8.0
    """Plays and skips in a session, on average."""

    mood_share: float = 0.85
    """Of the tracks that come to mind in a session: of the style it is in the mood for."""

    repeat_share: float = 0.25
    """Of the plays and skips after a user's first: tracks of the user's own past, recent ones before old ones."""

    choosiness: float = 6.0
    """Weight of affinity when one of the tracks that come to mind is chosen, against Gumbel noise of scale 1."""

    def __post_init__(self) -> None:
        """Raises SettingsError where a setting cannot be used."""
        for name, least in {"tracks": len(CHAIN), "users": 1, "listens": 1, "days": 1, "seconds": 3, "seed": 0}.items():
            if not getattr(self, name) >= least:
                raise SettingsError(f"{name} must be at least {least}, got {getattr(self, name)}; ask for more")
        if self.seconds > _SHORTEST_S:
            raise SettingsError(f"seconds must be at most {_SHORTEST_S}, got {self.seconds}; no track is shorter")
        if self.artists is not None and not len(CHAIN) <= self.artists <= self.tracks:
            raise SettingsError(
                f"artists must be {len(CHAIN)} (one for every style) to {self.tracks} (one for every track), "
                f"got {self.artists}; change one of the two"
            )
        if self.audio_format is not None and self.audio_format not in FORMATS:
            raise SettingsError(f"no format {self.audio_format!r} can be written; choose one of {', '.join(FORMATS)}")
        for name, value in asdict(self).items():
            if name.endswith("_share") and not 0.0 <= value <= 1.0:
                raise SettingsError(f"{name} must be a share from 0 to 1, got {value}; change it")

    @property
    def artist_count(self) -> int:
        """Artists of the catalogue."""
        return self.artists or max(len(CHAIN), self.tracks // 8)

    @property
    def start_ms(self) -> int:
        """When the platform opens."""
        return END_MS - self.days * DAY_MS


@dataclass(frozen=True, kw_only=True, eq=False)
class Catalogue:
    """The tracks: arrays of (tracks,) values.

    Attributes:
        style: numbers, places in CHAIN.
        artist: numbers.
        brightness: -1 to 1.
        latent: (tracks, dimensions), of unit norm.
        popularity: sums to 1.
        released_day: counted from the start; below 0 before it.
        duration_ms: length of the track.
        seed: of the audio.
    """

    style: Int64
    artist: Int64
    brightness: Float64
    latent: Float32
    popularity: Float64
    released_day: Int64
    duration_ms: Int64
    seed: Int64


@dataclass(frozen=True, kw_only=True, eq=False)
class Listeners:
    """The users: arrays of (users,) values, the tastes as a pair (early, late).

    Attributes:
        styles: two of (users, styles): weights of the 1 to 3 styles a user likes, summing to 1.
        tastes: two of (users, dimensions), of unit norm.
        drift: the share of the way from the early to the late taste that is made by the end, 0 to 1.
        joined_day: counted from the start, with fractions.
        activity: how much a user listens a day, in proportion.
    """

    styles: tuple[Float64, Float64]
    tastes: tuple[Float32, Float32]
    drift: Float64
    joined_day: Float64
    activity: Float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Sessions:
    """The sessions, user by user and oldest first: arrays of (sessions,) values; and the plays and skips in them.

    Attributes:
        user: numbers.
        begin_ms: counted from the start; a session waits where the user's last one is not over.
        style: that the session is in the mood for.
        taste: (sessions, dimensions), the user's at that time.
        mood: (sessions, dimensions), what the session is after.
        first_of_user: number of the first session of the same user.
        first: number of its first play or skip.
        of: (steps,) the session of each play or skip.
    """

    user: Int64
    begin_ms: Int64
    style: Int64
    taste: Float32
    mood: Float32
    first_of_user: Int64
    first: Int64
    of: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Listens:
    """The log, ordered by time: arrays of (listens,) values.

    Attributes:
        user, track: numbers.
        kind: numbers, places in KINDS.
        at_ms: milliseconds UTC.
        played_ms: of plays and skips; -1 of others.
    """

    user: NDArray[np.int32]
    track: NDArray[np.int32]
    kind: NDArray[np.int8]
    at_ms: Int64
    played_ms: NDArray[np.int32]


def run(config: SynthPlatform, out_dir: Path) -> None:
    """Make a platform: all of it at once under its name, or nothing.

    Args:
        config: what can be set.
        out_dir: folder to make; a synthetic platform there is replaced.

    Raises:
        SettingsError: out_dir holds something else, or cannot be written to.
    """
    try:
        check_replaceable(out_dir, str(CONFIG))
        with new_folder(out_dir) as folder:
            _build(config, folder)
    except (OSError, soundfile.SoundFileRuntimeError, pl.exceptions.ComputeError) as error:
        raise SettingsError(
            f"the platform cannot be written to {out_dir} ({error}); make room, or name another folder"
        ) from error


def _build(config: SynthPlatform, folder: Path) -> None:
    rng = np.random.default_rng(config.seed)
    catalogue, listeners = draw_catalogue(config, rng), draw_listeners(config, rng)
    for name in ("listens", "truth"):
        (folder / name).mkdir()
    _write_tracks(config, catalogue, folder)
    _write_truth(config, catalogue, listeners, folder / "truth")
    with progress_bar() as bar:
        advance = partial(bar.advance, bar.add_task("Listening", total=config.listens))
        listens = draw_listens(config, catalogue, listeners, rng, advance=advance)
        advance = partial(bar.advance, bar.add_task("Writing listens", total=config.listens))
        _write_listens(catalogue, listens, folder / "listens", advance=advance)
        if config.audio_format is not None:
            advance = partial(bar.advance, bar.add_task("Synthesising tracks", total=config.tracks))
            _write_audio(config, catalogue, folder, advance=advance)


# --- the catalogue and the listeners


def style_centres() -> Float64:
    """(styles, styles): a unit vector for each style; neighbours in CHAIN have a cosine of about 0.7, others little."""
    styles = len(CHAIN)
    return _unit(np.eye(styles) + 0.5 * (np.eye(styles, k=1) + np.eye(styles, k=-1)))


def draw_catalogue(config: SynthPlatform, rng: Generator) -> Catalogue:
    """Tracks of artists who each have a style, a brightness and a scene."""
    tracks, artists = config.tracks, config.artist_count
    scene, brightness = rng.normal(0.0, 0.2, (artists, _SCENE)), rng.uniform(-1.0, 1.0, artists)
    artist = np.concatenate([np.arange(artists), rng.integers(artists, size=tracks - artists)])
    style = artist % len(CHAIN)
    brightness = np.clip(brightness[artist] + rng.normal(0.0, 0.15, tracks), -1.0, 1.0)
    latent = np.hstack([style_centres()[style], _BRIGHTNESS_WEIGHT * brightness[:, None], scene[artist]])
    popularity = (1.0 + rng.permutation(tracks)) ** -config.zipf
    new = rng.random(tracks) < config.new_track_share
    new[: len(CHAIN)] = False  # every style has a track from the start
    later, before = rng.integers(1, max(2, config.days), tracks), rng.integers(-1000, 1, tracks)
    return Catalogue(
        style=style,
        artist=artist,
        brightness=brightness,
        latent=_unit(latent + rng.normal(0.0, 0.06, latent.shape)).astype(np.float32),
        popularity=popularity / popularity.sum(),
        released_day=np.where(new, later, before),
        duration_ms=rng.integers(1000 * _SHORTEST_S, 300_001, tracks),
        seed=rng.integers(2**62, size=tracks),
    )


def draw_listeners(config: SynthPlatform, rng: Generator) -> Listeners:
    """Users with an early and a late taste; every second one changes little."""
    users = config.users
    (early_styles, early), (late_styles, late) = (_draw_tastes(users, rng) for _ in range(2))
    new = rng.random(users) < config.new_user_share
    return Listeners(
        styles=(early_styles, late_styles),
        tastes=(early, late),
        drift=np.where(rng.random(users) < 0.5, rng.uniform(0.3, 1.0, users), rng.uniform(0.0, 0.1, users)),
        joined_day=np.where(new, rng.uniform(0.0, 0.95 * config.days, users), 0.0),
        activity=rng.lognormal(0.0, 1.0, users),
    )


def _draw_tastes(users: int, rng: Generator) -> tuple[Float64, Float32]:
    places = rng.random((users, len(CHAIN))).argsort(axis=1)
    weights = rng.exponential(size=places.shape) * (places < rng.integers(1, 4, (users, 1)))
    weights /= weights.sum(axis=1, keepdims=True)
    brightness, scene = rng.uniform(-1.0, 1.0, (users, 1)), rng.normal(0.0, 0.2, (users, _SCENE))
    taste = np.hstack([_unit(weights @ style_centres()), _BRIGHTNESS_WEIGHT * brightness, scene])
    return weights, _unit(taste).astype(np.float32)


# --- the listens


def draw_listens(
    config: SynthPlatform,
    catalogue: Catalogue,
    listeners: Listeners,
    rng: Generator,
    *,
    advance: Callable[[int], None] = lambda _: None,
) -> Listens:
    """All that the users do: sessions, the tracks in them, how long each is heard, what is said about it.

    advance: called with a number of listens when these are done.
    """
    feedback = round(_FEEDBACK_SHARE * config.listens)
    steps = config.listens - feedback  # plays and skips
    sessions = draw_sessions(config, listeners, steps, rng)
    again = rng.random(steps) < config.repeat_share
    again[sessions.first[sessions.first_of_user]] = False
    track = np.empty(steps, np.int32)
    for block, chosen in choose_new(config, catalogue, sessions, np.flatnonzero(~again), rng):
        track[block] = chosen
        advance(len(block))
    for block, chosen in choose_again(config, catalogue, sessions, again=again, track=track, rng=rng):
        track[block] = chosen
        advance(len(block))
    twice = np.flatnonzero(np.diff(track, prepend=-1) == 0)  # nobody plays one track on and on
    for block, chosen in choose_new(config, catalogue, sessions, twice, rng):
        track[block] = chosen
    liking = 1.0 / (1.0 + np.exp(-8.0 * (affinities(catalogue, sessions, track) - 0.5)))
    kind, heard = react(liking, rng)
    played_ms = (heard * catalogue.duration_ms[track]).astype(np.int32)
    at_ms = config.start_ms + end_times_ms(sessions, played_ms, rng)
    of, said, pause_ms = speak(liking, heard, feedback, rng)
    of, kind = np.append(np.arange(steps, dtype=np.int32), of), np.append(kind, said)
    at_ms = np.append(at_ms, at_ms[of[steps:]] + pause_ms)
    order = np.argsort(at_ms, kind="stable")
    of, kind = of[order], kind[order]
    advance(feedback)
    return Listens(
        user=sessions.user[sessions.of[of]].astype(np.int32),
        track=track[of],
        kind=kind,
        at_ms=at_ms[order],
        played_ms=np.where((kind == _PLAY) | (kind == _SKIP), played_ms[of], np.int32(-1)),
    )


def draw_sessions(config: SynthPlatform, listeners: Listeners, steps: int, rng: Generator) -> Sessions:
    """Spread plays and skips over users by activity and days there, over sessions by chance, and set the moods."""
    weights = listeners.activity * (config.days - listeners.joined_day)
    user_of_step = np.repeat(np.arange(config.users), rng.multinomial(steps, weights / weights.sum()))
    begins = (rng.random(steps) < 1.0 / config.session_length) | (np.diff(user_of_step, prepend=-1) > 0)
    first = np.flatnonzero(begins)
    user = user_of_step[first]
    joined = listeners.joined_day[user]
    day = joined + (config.days - joined) * rng.random(len(first))
    day = day[np.lexsort((day, user))]
    late = (listeners.drift[user] * day / config.days)[:, None]
    likes = (1.0 - late) * listeners.styles[0][user] + late * listeners.styles[1][user]
    likes = np.cumsum(0.9 * likes + 0.1 / len(CHAIN), axis=1)
    style = (likes[:, :-1] < rng.random((len(first), 1))).sum(axis=1)
    taste = _unit((1.0 - late) * listeners.tastes[0][user] + late * listeners.tastes[1][user])
    mood = taste + rng.normal(0.0, 0.1, taste.shape)
    mood[:, : len(CHAIN)] += 0.5 * style_centres()[style]
    return Sessions(
        user=user,
        begin_ms=(day * DAY_MS).astype(np.int64),
        style=style,
        taste=taste.astype(np.float32),
        mood=_unit(mood).astype(np.float32),
        first_of_user=np.searchsorted(user, user),
        first=first,
        of=np.cumsum(begins, dtype=np.int32) - np.int32(1),
    )


def choose_new(
    config: SynthPlatform, catalogue: Catalogue, sessions: Sessions, steps: Int64, rng: Generator
) -> Iterator[tuple[Int64, Int64]]:
    """Tracks of what is out on the day, by popularity and novelty, then mood: (steps, their tracks) in blocks."""
    by_style = np.argsort(catalogue.style, kind="stable")
    edges = np.searchsorted(catalogue.style[by_style], np.arange(len(CHAIN) + 1))
    day_of = (sessions.begin_ms // DAY_MS).astype(np.int32)[sessions.of[steps]]
    steps = steps[np.argsort(day_of, kind="stable")]
    for day, of_day in enumerate(np.split(steps, np.cumsum(np.bincount(day_of, minlength=config.days))[:-1])):
        age = day - catalogue.released_day
        novelty = config.novelty * np.exp(-np.maximum(age, 0) / config.novelty_days)
        reach = np.cumsum((catalogue.popularity * (age >= 0) * (1.0 + novelty))[by_style])
        ends = np.append(0.0, reach)[edges]
        low, high = np.append(ends[:-1], 0.0), np.append(ends[1:], ends[-1])  # of each style, and of any style
        for block in _blocks(of_day):
            session = sessions.of[block]
            of_mood = rng.random((len(block), _CHOICES)) < config.mood_share
            pool = np.where(of_mood, sessions.style[session][:, None], len(CHAIN))
            place = low[pool] + (high - low)[pool] * (1.0 - 1e-9) * rng.random(pool.shape)
            minds = by_style[np.searchsorted(reach, place, side="right")]
            yield block, _choose(config, catalogue, minds, sessions.mood[session], rng)


def choose_again(
    config: SynthPlatform,
    catalogue: Catalogue,
    sessions: Sessions,
    *,
    again: NDArray[np.bool_],
    track: NDArray[np.int32],
    rng: Generator,
) -> Iterator[tuple[Int64, Int64]]:
    """Tracks that the user chose before, where `again`: the n-th last with a weight of about 1 / n, then mood."""
    new, new_so_far = np.flatnonzero(~again), np.cumsum(~again)
    for block in _blocks(np.flatnonzero(again)):
        session = sessions.of[block]
        known = new_so_far[block] - new_so_far[sessions.first[sessions.first_of_user[session]]] + 1
        back = (known[:, None] ** rng.random((len(block), 4))).astype(np.int64)
        minds = track[new[new_so_far[block][:, None] - back]]
        yield block, _choose(config, catalogue, minds, sessions.mood[session], rng)


def _choose(config: SynthPlatform, catalogue: Catalogue, minds: NDArray[Any], mood: Float32, rng: Generator) -> Int64:
    """One of each row of tracks that come to mind, by softmax of choosiness * affinity to the mood."""
    scores = config.choosiness * np.einsum("nkd,nd->nk", catalogue.latent[minds], mood)
    scores -= np.log(rng.standard_exponential(minds.shape, np.float32))
    return minds[np.arange(len(minds)), scores.argmax(axis=1)]


def affinities(catalogue: Catalogue, sessions: Sessions, track: NDArray[np.int32]) -> Float32:
    """(steps,) cosine of each track and the taste of its listener at that time."""
    found = np.empty(len(track), np.float32)
    for block in _blocks(np.arange(len(track))):
        found[block] = np.einsum("nd,nd->n", catalogue.latent[track[block]], sessions.taste[sessions.of[block]])
    return found


def react(liking: NDArray[np.floating], rng: Generator) -> tuple[NDArray[np.int8], Float64]:
    """Kind (play or skip) of each, and the share heard: at least half as often as `liking` says, else less."""
    stays = rng.random(len(liking)) < liking
    skips = ~stays & (rng.random(len(liking)) < 0.5)
    heard = np.where(stays, rng.uniform(0.5, 4.0, len(liking)).clip(max=1.0), rng.uniform(0.01, 0.49, len(liking)))
    return np.where(skips, _SKIP, _PLAY).astype(np.int8), heard * np.where(skips, 0.3, 1.0)


def end_times_ms(sessions: Sessions, played_ms: NDArray[np.int32], rng: Generator) -> Int64:
    """When each play or skip ends, counted from the start: one by one for a user, at least 5 s between them.

    A session waits where the user's last one is not over.
    """
    passed = np.cumsum(played_ms + 5000 + rng.exponential(5000.0, len(played_ms)).astype(np.int64))
    before = np.append(0, passed)[sessions.first]
    busy = before - before[sessions.first_of_user]
    apart = sessions.user * (busy.max() + sessions.begin_ms.max() + 1)  # no user's maximum reaches the next user
    begin = np.maximum.accumulate(sessions.begin_ms - busy + apart) - apart + busy
    return passed + (begin - before)[sessions.of]


def speak(
    liking: NDArray[np.floating], heard: Float64, count: int, rng: Generator
) -> tuple[NDArray[np.int32], NDArray[np.int8], Int64]:
    """Exactly `count` of feedback: the play or skip that each follows, its kind, and how long after (ms).

    What is heard is liked and added to playlists, what is left is disliked, the more often the surer the liking.
    """
    back = round(_TAKEN_BACK_SHARE * count)
    weights = np.where(heard >= 0.5, liking**2, 0.5 * (1.0 - liking) ** 2)
    race = rng.standard_exponential(len(liking)) / weights  # the first to arrive are a sample without replacement
    of = np.sort(np.argpartition(race, count)[: count - back])
    kept = rng.random(len(of)) < 0.25
    said = np.where(heard[of] < 0.5, _DISLIKE, np.where(kept, _PLAYLIST_ADD, _LIKE))
    regret = rng.choice(np.flatnonzero(said != _PLAYLIST_ADD), back, replace=False)
    taken_back = np.where(said[regret] == _LIKE, _UNLIKE, _UNDISLIKE)
    return (
        np.append(of, of[regret]).astype(np.int32),
        np.append(said, taken_back).astype(np.int8),
        np.repeat([1000, 3000], [len(of), back]),
    )


def _blocks(rows: Int64) -> Iterator[Int64]:
    for start in range(0, len(rows), _BLOCK):
        yield rows[start : start + _BLOCK]


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


# --- the files


def _write_tracks(config: SynthPlatform, catalogue: Catalogue, folder: Path) -> None:
    track = _ids("t", config.tracks)
    style = pl.Series(CHAIN).gather(catalogue.style)
    released_ms = config.start_ms + catalogue.released_day * DAY_MS
    pl.DataFrame(
        {
            "track_id": track,
            "artist_id": _ids("a", config.artist_count).gather(catalogue.artist),
            "title": style.str.to_titlecase() + pl.Series([f" no. {number + 1}" for number in range(config.tracks)]),
            "style": style,
            "released_at": released_ms,
            "duration_ms": catalogue.duration_ms,
            "popularity": catalogue.popularity,
            "audio": pl.Series([None] * config.tracks, dtype=pl.String)
            if config.audio_format is None
            else "audio/" + track + f".{config.audio_format}",
        }
    ).write_parquet(folder / "tracks.parquet")


def _write_truth(config: SynthPlatform, catalogue: Catalogue, listeners: Listeners, folder: Path) -> None:
    """What was programmed in; truth/README.md says what each column is."""
    pl.DataFrame(
        {
            "track_id": _ids("t", config.tracks),
            "latent": catalogue.latent,
            "brightness": catalogue.brightness,
            "audio_seed": catalogue.seed,
        }
    ).write_parquet(folder / "tracks.parquet")
    pl.DataFrame(
        {
            "user_id": _ids("u", config.users),
            "joined_at": (config.start_ms + listeners.joined_day * DAY_MS).astype(np.int64),
            "activity": listeners.activity,
            "drift": listeners.drift,
            "early_taste": listeners.tastes[0],
            "late_taste": listeners.tastes[1],
            "early_styles": listeners.styles[0],
            "late_styles": listeners.styles[1],
        }
    ).write_parquet(folder / "users.parquet")
    pl.DataFrame({"style": CHAIN, "centre": style_centres()}).write_parquet(folder / "styles.parquet")
    (folder / "README.md").write_text(_README)
    config_json = msgspec.json.encode({"caveat": CAVEAT, "start_at": config.start_ms, "config": asdict(config)})
    (folder / CONFIG.name).write_bytes(msgspec.json.format(config_json, indent=2) + b"\n")


_README = f"""# The truth behind this platform

{CAVEAT}

A listener's affinity to a track is the cosine of the listener's taste at that time and the track's latent vector.
It decides what is chosen (with popularity, novelty, the session's mood and the listener's past), heard out, skipped,
liked and disliked.

| file | what it holds |
|---|---|
| config.json | every setting, the seed among them |
| styles.parquet | style; centre: dimensions 0 to 7 of the latent vector of a track of this style, before noise |
| tracks.parquet | latent: 0 to 7 style, 8 brightness, 9 to 15 the artist's scene, which cannot be heard; brightness: -1 to 1, the audio's highs end at 4 kHz * 3^brightness; audio_seed |
| users.parquet | taste at the time t: early_taste * (1 - d) + late_taste * d, scaled to length 1, where d = drift * (share of the days that is over); early_styles and late_styles: weights of the 8 styles, in the order of styles.parquet; joined_at: no listen before it; activity: listens a day, in proportion |
"""  # noqa: E501


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
            }
        ).with_columns(pl.when(heard).then(pl.col("played_ms", "duration_ms"))).write_parquet(
            folder / f"{number:05d}.parquet", row_group_size=ROW_GROUP
        )
        advance(len(track))


def _ids(letter: str, count: int) -> pl.Series:
    return pl.Series([f"{letter}{number:06d}" for number in range(count)], dtype=pl.String)


def _write_audio(config: SynthPlatform, catalogue: Catalogue, folder: Path, *, advance: Callable[[int], None]) -> None:
    (folder / "audio").mkdir()
    jobs = [
        (folder / "audio" / f"{name}.{config.audio_format}", CHAIN[style], int(seed), float(brightness), config.seconds)
        for name, style, seed, brightness in zip(
            _ids("t", config.tracks), catalogue.style, catalogue.seed, catalogue.brightness, strict=True
        )
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_write_excerpt, jobs, chunksize=4):
            advance(1)


def _write_excerpt(job: tuple[Path, str, int, float, float]) -> None:
    path, style, seed, brightness, duration_s = job
    waveform = synthesise(style, seed=seed, duration_s=duration_s)
    mastered = np.stack([band(side, high_hz=4000.0 * 3.0**brightness) for side in waveform.T], axis=1)
    write_track(path, mastered * np.float32(0.9 / np.abs(mastered).max()))
