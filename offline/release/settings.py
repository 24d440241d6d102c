"""What can be set about a release; imports no training library, so that --help answers at once."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from offline.genre.settings import GenreTraining
from offline.synth.settings import SynthPlatform


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


class BuildDemonstration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline build-demonstration`; the defaults made the shipped release."""

    folder: Annotated[
        str, Meta(description="Folder of what is made on the way. What an earlier run has ended there is used again.")
    ]

    out: Annotated[
        str | None,
        Meta(description="Folder of the release, `release` in that folder when absent; one that is there is replaced."),
    ] = None

    taggrams_dir: Annotated[
        str | None,
        Meta(
            description="Folder as build-release takes it, to train the genre head of the default release anew; the "
            "head of the shipped release is taken when absent."
        ),
    ] = None

    tracks: Annotated[int, Meta(description="Tracks of the made-up platform.")] = 320

    artists: Annotated[int, Meta(description="Its artists; whole ones are held out to judge the encoder.")] = 80

    users: Annotated[int, Meta(description="Its listeners.")] = 800

    listens: Annotated[int, Meta(description="What they do, events of all kinds.")] = 80_000

    seconds: Annotated[float, Meta(description="Length of each audio file.")] = 10.0

    tower_steps: Annotated[int, Meta(ge=1, description="Most steps of the user tower's training.")] = 600

    encoder_steps: Annotated[int, Meta(ge=1, description="Most steps of the audio encoder's training.")] = 240

    fine_tuning_steps: Annotated[int, Meta(ge=1, description="Most steps of the user tower's fine-tuning.")] = 200

    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Of all that is drawn.")] = 0

    def platform(self, out: str) -> SynthPlatform:
        """The made-up platform, in a folder."""
        return SynthPlatform(
            out=out,
            tracks=self.tracks,
            artists=self.artists,
            users=self.users,
            listens=self.listens,
            seconds=self.seconds,
            seed=self.seed,
        )


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
