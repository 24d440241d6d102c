"""What can be set about the training of a genre head."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.errors import SettingsError
from models.features import feature_width
from offline.genre.kinds import KINDS, TagKind

GTZAN_GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")

Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0.0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Machine = Literal["least_squares", "hinge"]


class Block(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A feature that the head hears, and how its columns enter the PCA. Blocks stand side by side.

        Block(name="msd.max_pool")                       # 753 columns: models.features knows the width
        Block(name="embedding", width=40, weight=2.0)

    Settings and manifests have a block as an array: ["embedding", 1.0, 2.0, 40].

    Attributes:
        name: of the feature.
        exponent: each value x is raised to it: sign(x) |x|^exponent.
        weight: each column is standardised, and then multiplied by it; 0 stands for 1 / sqrt(width), with which all
            blocks vary by the same: else 40 columns of taste would count little beside 753 of max_pool.
        width: columns of the block; left out where models.features knows the feature.

    Raises:
        SettingsError: the width of a feature is not known, or not that of models.features.
    """

    name: Annotated[str, Meta(min_length=1)]
    exponent: Positive = 1.0
    weight: Annotated[float, Meta(ge=0.0)] = 0.0
    width: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        width = feature_width(self.name) or self.width
        if width == 0:
            raise SettingsError(f"nothing says how wide the input {self.name} is; give its width")
        if self.width not in (0, width):
            raise SettingsError(f"the input {self.name} has {width} columns, not {self.width}; leave its width out")
        msgspec.structs.force_setattr(self, "width", width)
        msgspec.structs.force_setattr(self, "weight", self.weight or width**-0.5)


class HeadTraining(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the training of any genre head; the defaults made the default release.

    They were chosen by the one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984) on
    nested folds over its 443 tracks: the smoothest setting that is no worse than the best by more than the standard
    error of the difference. deploy/docs/tagging.md has the table.
    """

    classes: Annotated[
        tuple[str, ...], Meta(min_length=1, description="The genres, in the order of the labels' numbers.")
    ] = GTZAN_GENRES

    inputs: Annotated[
        tuple[Block, ...],
        Meta(
            min_length=1,
            description="Features of a window that the head hears, each as [name, exponent, weight, width]; a weight "
            "of 0 stands for 1 / sqrt(width), a width of 0 for the feature's own.",
        ),
    ] = (Block(name="msd.taggram.mean", weight=1.0),)

    machine: Annotated[
        Machine,
        Meta(description="The loss of the support vector machine: squared (least squares), or the hinge."),
    ] = "least_squares"

    max_components: Annotated[
        Count, Meta(description="Most components of the PCA; there are no more of them than columns or tracks.")
    ] = 128

    gammas: Annotated[
        tuple[Positive, ...],
        Meta(
            min_length=1,
            description="Values of the RBF kernel's gamma that are tried, each divided by the variance of the tracks "
            "in the space of the PCA.",
        ),
    ] = (0.03, 0.1, 0.25, 0.5)

    ridges: Annotated[
        tuple[Positive, ...],
        Meta(
            min_length=1,
            description="Weights of the machine's regulariser that are tried, 1 / C of a hinge. Of all settings that "
            "are not worse than the best by more than a standard error, the one with the least gamma is taken, and "
            "of these the one with the greatest ridge.",
        ),
    ] = (0.1, 0.3, 1.0)

    artist_power: Annotated[
        float,
        Meta(
            ge=0.0,
            description="Within a genre a track counts 1 / (tracks of its artist)^artist_power; all genres count the "
            "same.",
        ),
    ] = 0.5

    folds: Annotated[
        int, Meta(ge=2, description="Outer folds, which measure the head; no artist is on both sides of one.")
    ] = 10

    inner_folds: Annotated[
        int, Meta(ge=2, description="Folds within each outer fold, which choose gamma and ridge.")
    ] = 5

    repeats: Annotated[Count, Meta(description="How many times the outer folds are drawn anew.")] = 5

    target_accuracy: Annotated[
        Share,
        Meta(
            description="The head abstains below the confidence from which on it is right this often on the tracks of "
            "unheard artists. Where tracks have several labels, each label has a threshold of its own."
        ),
    ] = 0.85

    near_share: Annotated[
        Share,
        Meta(
            description="Share of the tracks of unheard artists that count as near enough to the training tracks; "
            "the head abstains on anything farther away."
        ),
    ] = 0.95

    kinds: Annotated[
        tuple[TagKind, ...],
        Meta(
            description="Kinds of music that tags name, each as [name, tags, genres]: the head abstains where the "
            "strongest tag of a track names a kind with whose genres its guess does not go. None: tags are not asked."
        ),
    ] = KINDS

    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Draws the folds; another seed, other folds.")] = 0


class GenreTraining(HeadTraining, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the training of a genre head on a file of taggrams."""

    patch_step: Annotated[
        Count,
        Meta(
            description="One patch in so many is heard: those of the file are 61 frames apart, those that "
            "workers hear 187."
        ),
    ] = 3


class TrainGenre(HeadTraining, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline train-genre`."""

    source: Annotated[
        str,
        Meta(
            description="Folder with a folder of audio files for each genre, or a CSV or Parquet file with the columns "
            "path (or uri, or audio), genre and, where known, artist_id. A track may have several genres: a list, or "
            "`Rock; Pop` in CSV. `Electronic---House` is within `Electronic`. Or a folder that `features` wrote of "
            "such a catalogue: then no audio is heard."
        ),
    ]

    out: Annotated[str, Meta(description="Folder of the head; one that is there is replaced.")]

    genre_column: Annotated[
        str, Meta(description="Column of a catalogue that has the genre; features have that of `features`.")
    ] = "genre"

    release: Annotated[
        str | None,
        Meta(
            description="Folder or URL of the release whose networks, windows and loudness hear the tracks; the one "
            "that ships with the project when absent."
        ),
    ] = None

    artists: Annotated[
        str | None,
        Meta(
            description="Folder or URL of a table of artists (embed-artists), whose vectors the head hears where the "
            "artist of a track is in it."
        ),
    ] = None

    corrections: Annotated[
        str | None,
        Meta(
            description="Folder of a dump of tastewave.tracks.corrected: where an editor has corrected a track of the "
            "catalogue, by its track_id, the editor's genre counts instead of the catalogue's."
        ),
    ] = None

    audio_encoder: Annotated[
        str | None,
        Meta(
            description="Folder or URL of the audio encoder of the release that the head is for: the head hears the "
            "place that it gives a track in taste space, as the input `embedding`."
        ),
    ] = None

    blocks: Annotated[
        dict[Annotated[str, Meta(pattern="^[a-z0-9_-]{1,40}$")], str],
        Meta(
            description="Folders or URLs of further audio encoders that the head hears, by name: each gives the input "
            "NAME.embedding. An encoder's input that inputs do not name is added with its default weight."
        ),
    ] = {}

    artist_weight: Annotated[
        Positive,
        Meta(
            description="How much the vectors of artists vary beside an input whose weight is 0; not used where inputs "
            "name artist_embedding."
        ),
    ] = 0.5

    classes: Annotated[
        tuple[str, ...], Meta(description="The genres to learn; all those of the source when empty.")
    ] = ()

    inputs: Annotated[
        tuple[Block, ...],
        Meta(
            min_length=1,
            description="Features of a window that the head hears, each as [name, exponent, weight, width]; a weight "
            "of 0 stands for 1 / sqrt(width), a width of 0 for the feature's own.",
        ),
    ] = (Block(name="msd.taggram.mean"),)

    repeats: Annotated[
        Count,
        Meta(
            description="How many times the outer folds are drawn anew. The time grows with it; with some hundred "
            "tracks, 5 make steadier figures."
        ),
    ] = 1

    kinds: Annotated[
        tuple[TagKind, ...],
        Meta(
            description="Kinds of music that tags name, each as [name, tags, genres]: the head abstains where the "
            "strongest tag of a track names a kind with whose genres its guess does not go. None: tags are not asked."
        ),
    ] = ()


class EmbedArtists(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline embed-artists`."""

    log: Annotated[str, Meta(description="Parquet file of listens, a folder of them, a glob, or an fsspec URL.")]

    catalogue: Annotated[str, Meta(description="CSV or Parquet file with the columns track_id and artist_id.")]

    out: Annotated[str, Meta(description="Folder of the table; one that is there is replaced.")]

    dim: Annotated[int, Meta(ge=2, le=512, description="Dimensions of the vectors.")] = 40

    least_listeners: Annotated[
        Count,
        Meta(description="An artist with fewer listeners gets no vector: it would say what these few people like."),
    ] = 3

    forgotten: Annotated[
        str | None, Meta(description="Where a dump of the topic tastewave.forgotten lies: its listens are left out.")
    ] = None
