"""What can be set about a release; imports no training library, so that --help answers at once."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from offline.genre.settings import GenreTraining


class BuildRelease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline build-release`."""

    taggrams_dir: Annotated[
        str | None,
        Meta(
            description="Folder of train.npz (X, Y, IDS) and train_artists.csv (track, artist), to train a genre head "
            "on. Where neither this nor genre_head is given, the release gets the head of the shipped one."
        ),
    ] = None

    genre_head: Annotated[
        str | None,
        Meta(description="Folder or URL of the genre head that train-genre wrote, instead of training one."),
    ] = None

    out: Annotated[str, Meta(description="Folder of the release; one that is there is replaced.")]

    networks: Annotated[
        str | None,
        Meta(
            description="Folder of the converted networks and their licence; that of the shipped release when absent."
        ),
    ] = None

    tower: Annotated[
        str | None,
        Meta(description="Folder of the user tower that places users. Listens workers need one."),
    ] = None

    audio_encoder: Annotated[
        str | None,
        Meta(
            description="Folder of the audio encoder, which gives each track a place in the taste space: that of the "
            "tower, where there is one."
        ),
    ] = None

    blocks: Annotated[
        dict[Annotated[str, Meta(pattern="^[a-z0-9_-]{1,40}$")], str],
        Meta(
            description="Folders of audio encoders for the genre head, by name: `training.inputs`, or the head of "
            "genre_head, names what it hears of them as NAME.embedding."
        ),
    ] = {}

    loudness_lufs: Annotated[
        Annotated[float, Meta(ge=-70, le=0)] | None,
        Meta(
            description="Loudness (LUFS) that the audio was given before the taggrams were taken; workers give it to "
            "tracks too. Absent where the audio was as loud as it was, and where genre_head says it."
        ),
    ] = None

    training: Annotated[GenreTraining, Meta(description="How the genre head is trained.")] = GenreTraining()


class PublishRelease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline publish-release`."""

    folder: Annotated[str, Meta(description="Folder of the release.")]

    url: Annotated[
        str,
        Meta(description="fsspec URL of a new folder, such as s3://models/2026-11; the storage's own settings apply."),
    ]

    sign_key: Annotated[
        str | None,
        Meta(
            description="PEM file of the private key (elliptic curve) that signs the release; it is not signed when "
            "absent. Needs tastewave[signing]."
        ),
    ] = None
