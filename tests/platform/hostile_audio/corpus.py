"""The whole corpus of hostile inputs."""

from tests.platform.hostile_audio.canary import Target
from tests.platform.hostile_audio.damage import bit_flipped, chained, truncated
from tests.platform.hostile_audio.disguises import file_names, other_files
from tests.platform.hostile_audio.elsewhere import playlists, references
from tests.platform.hostile_audio.excess import bombs, extreme_signals, swollen_tags
from tests.platform.hostile_audio.findings import findings
from tests.platform.hostile_audio.inputs import Hostile
from tests.platform.hostile_audio.lies import (
    lying_adts,
    lying_asf,
    lying_flac,
    lying_matroska,
    lying_mp3,
    lying_mp4,
    lying_ogg,
    lying_wav,
)


def corpus(target: Target) -> list[Hostile]:
    """Every hostile input, in a fixed order, each under a name of its own.

    Args:
        target: what those that point elsewhere point at.
    """
    return [
        *truncated(),
        *bit_flipped(),
        *lying_wav(),
        *lying_flac(),
        *lying_ogg(),
        *lying_mp3(),
        *lying_mp4(),
        *lying_adts(),
        *lying_matroska(),
        *lying_asf(),
        *bombs(),
        *extreme_signals(),
        *chained(),
        *swollen_tags(),
        *other_files(),
        *playlists(target),
        *references(target),
        *file_names(),
        *findings(),
    ]
