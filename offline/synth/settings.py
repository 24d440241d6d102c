"""What can be set of a synthetic platform."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from models.errors import SettingsError
from offline.synth.music import FORMATS, AudioFormat

CHAIN = ("classical", "jazz", "reggae", "hiphop", "disco", "country", "blues", "metal")
"""The styles of offline.synth.music, each a little like the next; the place of a style here is its number."""

DAY_MS = 86_400_000
END_MS = 1_767_225_600_000  # 2026-01-01; fixed, so that equal settings give equal bytes
SHORTEST_TRACK_S = 120


class SynthPlatform(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of `tastewave-offline synth platform`; equal settings give equal bytes, in whatever folder.

    Raises:
        SettingsError: a setting that cannot be used.
    """

    out: Annotated[str, Meta(description="Folder to make. A synthetic platform that is there is replaced.")]
    tracks: Annotated[int, Meta(description="Tracks, in eight styles.")] = 200
    artists: Annotated[
        int | None,
        Meta(
            description="Artists; each plays one style. When absent, one for every eight tracks, and at least one for "
            "every style."
        ),
    ] = None
    users: Annotated[int, Meta(description="Listeners.")] = 500
    listens: Annotated[int, Meta(description="Events of all kinds; the log has exactly so many.")] = 50_000
    days: Annotated[int, Meta(description="Days that the listens span; they end with the year 2025.")] = 90
    seconds: Annotated[
        float, Meta(description="Length of each audio file, an excerpt of a track of 2 to 5 minutes.")
    ] = 10.0
    audio_format: Annotated[AudioFormat, Meta(description="Format of the audio files.")] = "flac"
    no_audio: Annotated[bool, Meta(description="Write no audio files; the rest stays as it is.")] = False
    seed: Annotated[int, Meta(description="Another seed makes another platform.")] = 0
    zipf: Annotated[float, Meta(description="A track's popularity is 1 / rank^zipf.")] = 0.8
    new_track_share: Annotated[
        float, Meta(description="Share of the tracks that are released after the first day, at midnight of some day.")
    ] = 0.3
    novelty: Annotated[
        float,
        Meta(
            description="On the day of its release a track's popularity is 1 + novelty times its own; what is added "
            "falls by the factor e every novelty_days."
        ),
    ] = 4.0
    novelty_days: Annotated[float, Meta(description="Days in which a track's novelty falls by the factor e.")] = 5.0
    new_user_share: Annotated[float, Meta(description="Share of the users who join after the start.")] = 0.3
    session_length: Annotated[float, Meta(description="Plays and skips in a session, on average.")] = 8.0
    mood_share: Annotated[
        float,
        Meta(description="Share of the tracks that come to mind in a session that are of the style of its mood."),
    ] = 0.85
    repeat_share: Annotated[
        float,
        Meta(
            description="Share of the plays and skips, a user's first aside, that are tracks of the user's own past, "
            "recent ones more often than old ones."
        ),
    ] = 0.25
    choosiness: Annotated[
        float,
        Meta(
            description="Weight of the affinity when one of the tracks that come to mind is chosen, against Gumbel "
            "noise of scale 1."
        ),
    ] = 6.0

    def __post_init__(self) -> None:
        for name, least in {"tracks": len(CHAIN), "users": 1, "listens": 1, "days": 1, "seconds": 3, "seed": 0}.items():
            if not getattr(self, name) >= least:
                raise SettingsError(f"{name} must be at least {least}, got {getattr(self, name)}; ask for more")
        if self.seconds > SHORTEST_TRACK_S:
            raise SettingsError(
                f"seconds must be at most {SHORTEST_TRACK_S}, got {self.seconds}; no track is shorter than that"
            )
        if self.artists is not None and not len(CHAIN) <= self.artists <= self.tracks:
            raise SettingsError(
                f"artists must be {len(CHAIN)} (one for every style) to {self.tracks} (one for every track), "
                f"got {self.artists}; change one of the two"
            )
        if self.audio_format not in FORMATS:
            raise SettingsError(f"no format {self.audio_format!r} can be written; choose one of {', '.join(FORMATS)}")
        for name, value in msgspec.structs.asdict(self).items():
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
