"""What a release says of its answers that Redis does not tell: names of tags, moments of patches, thresholds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from models.errors import TastewaveError
from models.history import CountingRule
from models.release import Release, load_release
from stream.settings import WorkerSettings

log = structlog.get_logger(__name__)


class ReleaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is read from the files of a release.

    Attributes:
        release: its id.
        tags: of its first network, in the order of a taggram's columns.
        windows: most windows that it hears of a track.
        window_s: length of a window, s.
        thresholds: the probability from which on each genre is answered; without a genre that is never answered.
        counting: which listens count for what; None where the release places no users.
    """

    release: str
    tags: tuple[str, ...]
    windows: int
    window_s: int
    thresholds: dict[str, float]
    counting: CountingRule | None

    def starts_ms(self, *, patches: int, duration_ms: int) -> list[int] | None:
        """Where the patches of a taggram start in a track of this length; None where the windows hold no such number.

        Where a release left long silences out of a track, patches lie later than is told.
        """
        from models.audio.windows import WindowPlan
        from models.mel import MUSICNN, PATCH_FRAMES

        starts_s = WindowPlan(count=self.windows, window_s=self.window_s).starts_s(duration_ms / 1000)
        each, rest = divmod(patches, len(starts_s))
        patch_ms = 1000 * PATCH_FRAMES * MUSICNN.hop_length / MUSICNN.sample_rate
        if rest or each * patch_ms > 1000 * self.window_s:
            return None
        return [round(1000 * start_s + place * patch_ms) for start_s in starts_s for place in range(each)]


class OwnRelease:
    """The release of TASTEWAVE_RELEASE, read in a thread when it is first asked for.

    Args:
        settings: where it is, and the key that has to have signed it.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._reading: asyncio.Task[ReleaseFacts | None] | None = None

    async def facts(self, release: str) -> ReleaseFacts | None:
        """What is known of a release; None where it is another one, or cannot be read."""
        self._reading = self._reading or asyncio.create_task(asyncio.to_thread(self._read))
        facts = await asyncio.shield(self._reading)  # a client that goes away does not end it for the others
        return facts if facts and facts.release == release else None

    def _read(self) -> ReleaseFacts | None:
        try:
            return facts_of(load_release(self._settings.release, public_key=self._settings.release_public_key))
        except (TastewaveError, OSError) as error:
            log.warning("serve.no_release", error=str(error), advice="thresholds and tags are told without it")
            return None


def facts_of(release: Release) -> ReleaseFacts:
    """Read them. Raises ReleaseError where a part of the release cannot be used."""
    from models.musicnn import TAGS

    configuration, head = release.configuration, release.genre_head()
    thresholds: Sequence[float] = [head.min_confidence] * len(head.classes)
    if head.several:
        thresholds = head.several.thresholds.tolist()
    return ReleaseFacts(
        release=release.release_id,
        tags=TAGS[configuration.run[0]],
        windows=configuration.windows,
        window_s=configuration.window_s,
        thresholds={genre: least for genre, least in zip(head.classes, thresholds, strict=True) if least <= 1.0},
        counting=None if configuration.user_tower is msgspec.UNSET else release.user_tower().manifest.counting,
    )
