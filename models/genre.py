"""The genre head: what musicnn hears in the windows of a track -> a genre, or an abstention.

standardise -> PCA -> RBF support vector machine -> calibrated probabilities, trained by offline.genre.train and
folded into a few numpy arrays: one matrix for the first two steps, one RBF layer for the machine.

Most uploads are of no genre that a head knows, or of a mixture. So a head answers only where nothing speaks against its
guess: the tags of the network (models.tag_kinds), the training tracks near by, their distance, and its own probability.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.errors import ReleaseError
from models.features import feature_width
from models.label_rule import LabelRule
from models.tag_kinds import Ranked, TagKinds, best_first

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Float = NDArray[np.floating]
Int64 = NDArray[np.int64]

DISTANCE = "mean Euclidean distance, in the space of the PCA, to the 5 nearest training tracks"
"""The distance of GenreDecision and of a head's max_distance (Sun et al., Out-of-Distribution Detection with Deep
Nearest Neighbors, ICML 2022)."""

NEIGHBOURS = 5
_ADVICE = "build the release again with `tastewave-offline build-release`"


@dataclass(frozen=True, kw_only=True, slots=True)
class GenreDecision:
    """What a head says about a track.

    Attributes:
        genre: the best guess; None where the head abstains.
        guess: the best guess, abstained or not.
        genres: every genre with its probability, best first; they sum to 1. Where the tags contradict the head they
            are the kinds of music that the tags name, each with the probability of its strongest tag. Of a head of
            several labels they are the labels that are answered, `genre` first, and where it abstains every label,
            best first.
        distance: how far the track is from the training tracks (DISTANCE), a mean over its windows.
        abstained_because: the strongest tag names another kind of music than the best guess (tags), the track is too
            far from all training tracks (distance), most of those near it are of another genre (neighbours), or the
            best guess is too unlikely (confidence); the first of these that holds.
    """

    genre: str | None
    guess: str
    genres: tuple[tuple[str, float], ...]
    distance: float
    abstained_because: Literal["tags", "distance", "neighbours", "confidence"] | None

    @property
    def confidence(self) -> float:
        """Probability of the first of `genres`, 0 to 1."""
        return self.genres[0][1]


class Scores(NamedTuple):
    """What a head computes of windows.

    Attributes:
        decisions: (windows, classes) decision values.
        distances: (windows,) from the training tracks (DISTANCE).
        votes: (windows, classes) how many of the 5 nearest training tracks are of each genre, those that are as near as
            the fifth among them.
    """

    decisions: Float
    distances: Float
    votes: Float


class _Layers(NamedTuple):
    """The arrays of a head as it computes with them, in float64 or float32."""

    exponents: Float
    projection: Float
    offset: Float
    vector_squares: Float  # (training tracks,)
    minus_twice_vectors: Float  # (components, training tracks)
    classes: Float  # (training tracks, classes) 1 for the genre of each
    weights: Float
    biases: Float


@dataclass(frozen=True, kw_only=True, eq=False)
class GenreHead:
    """A trained head; the file is an npz of these arrays, so that reading one runs no code.

        head = load_release().genre_head()  # models.release
        window = window_features("msd", musicnn(log_mel))  # models.features
        decision = head.decide([window])
        decision.genre, decision.confidence

    Attributes:
        classes: the genres.
        inputs: names of the features of a window (models.features) that the head hears, side by side in this order:
            each is a block of columns as wide as the feature.
        exponents: (columns,) what each input value x is raised to: sign(x) |x|^exponent.
        projection: (columns, components) standardisation and PCA in one matrix.
        offset: (components,) to add after the projection.
        vectors: (training tracks, components) the support vectors, in the space of the PCA.
        labels: (training tracks,) their class numbers; 0 in a head of several labels.
        weights: (training tracks, classes) of the support vectors: a genre's decision value is
            biases[genre] + sum_i weights[i, genre] exp(-gamma |z - vectors[i]|^2).
        biases: (classes,)
        gamma: of the RBF kernel.
        temperature: probabilities are softmax(decision values / temperature) (Guo et al., On Calibration of
            Modern Neural Networks, ICML 2017).
        min_confidence: the head abstains below this probability of its best guess.
        max_distance: and where the track is farther than this from the training tracks (DISTANCE).
        kinds: and where the tags contradict its best guess; None where tags are not asked.
        several: how the classes are answered where a track may have several of them, or one within another; then
            temperature, min_confidence and the genres of the training tracks near by do not count. None where a track
            has one genre.
        plain: the head that decides where a window lacks an input, such as the embedding; None where there is none.
        widths: (inputs,) how many columns each input has; empty in a head of which at most one input has a name that
            does not tell it (models.features), such as one that hears tags alone.

    Raises:
        ReleaseError: the arrays do not fit together, or are not finite.
    """

    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    exponents: Float64
    projection: Float64
    offset: Float64
    vectors: Float64
    labels: Int64
    weights: Float64
    biases: Float64
    gamma: float
    temperature: float
    min_confidence: float
    max_distance: float
    kinds: TagKinds | None = None
    several: LabelRule | None = None
    plain: GenreHead | None = None
    widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        columns, components, tracks = len(self.exponents), len(self.offset), len(self.vectors)
        shapes = {
            "exponents": (columns,),
            "projection": (columns, components),
            "offset": (components,),
            "vectors": (tracks, components),
            "weights": (tracks, len(self.classes)),
            "biases": (len(self.classes),),
        }
        for name, shape in shapes.items():
            array: Float64 = getattr(self, name)
            if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
                raise ReleaseError(
                    f"{name} of the genre head is {array.dtype} {array.shape}, not finite float64 {shape}; {_ADVICE}"
                )
        labels, classes = self.labels, len(self.classes)
        if labels.shape != (tracks,) or labels.dtype != np.int64 or labels.min() < 0 or labels.max() >= classes:
            raise ReleaseError(f"labels of the genre head are not {tracks} int64 below {classes}; {_ADVICE}")
        of_kinds = self.kinds.fits.shape[1] if self.kinds else classes
        of_labels = len(self.several.parents) if self.several else classes
        if {of_kinds, of_labels} != {classes} or (self.plain and self.plain.classes != self.classes):
            raise ReleaseError(f"the parts of the genre head do not know the same {classes} classes; {_ADVICE}")
        for name in ("gamma", "temperature", "max_distance"):
            if not 0.0 < (value := getattr(self, name)) < np.inf:
                raise ReleaseError(f"{name} of the genre head is {value}, not a positive number; {_ADVICE}")
        if not (0.0 <= self.min_confidence <= 1.0 and tracks >= NEIGHBOURS and self.classes and self.inputs):
            raise ReleaseError(
                f"the genre head has {len(self.classes)} classes, {len(self.inputs)} inputs, {tracks} training tracks "
                f"(at least {NEIGHBOURS}) and min_confidence {self.min_confidence} (0 to 1); {_ADVICE}"
            )
        self._check_columns()

    @property
    def columns(self) -> dict[str, int]:
        """How many columns each input has, by its name, in their order."""
        if self.widths:
            return dict(zip(self.inputs, self.widths, strict=True))
        known = {name: feature_width(name) for name in self.inputs}
        rest = len(self.exponents) - sum(width or 0 for width in known.values())
        return {name: rest if width is None else width for name, width in known.items()}

    def _check_columns(self) -> None:
        """Raise ReleaseError where the inputs together are not as wide as what the head takes."""
        columns, known = len(self.exponents), [feature_width(name) for name in self.inputs]
        if known.count(None) > 1 and not self.widths:
            raise ReleaseError(
                f"the genre head of an earlier version does not say how wide each of {', '.join(self.inputs)} is; "
                f"{_ADVICE}"
            )
        told: list[int | None] = [*self.widths] or known
        total = sum(width or 0 for width in told)
        fit_names = len(told) == len(known) and all(b in (a, None) for a, b in zip(told, known, strict=True))
        if not fit_names or 0 in told or (columns <= total if None in told else columns != total):
            raise ReleaseError(
                f"the genre head takes {columns} columns, {', '.join(self.inputs)} have {told}; {_ADVICE}"
            )

    def check_widths(self, embeddings: Mapping[str, int]) -> None:
        """Raise ReleaseError where a release gives an input in another width than the head takes, or does not give it.

        A head beside which a plain one stands may go without an input.

        Args:
            embeddings: width of each feature that the audio encoders and the table of artists of a release give.
        """
        for name, columns in self.columns.items():
            given = feature_width(name, embeddings)
            if given is None and self.plain is None:
                raise ReleaseError(f"the genre head hears {name}, which nothing in the release gives; {_ADVICE}")
            if given is not None and given != columns:
                raise ReleaseError(
                    f"the genre head takes {columns} columns of {name}, the release gives {given}; {_ADVICE}"
                )
        if self.plain:
            self.plain.check_widths(embeddings)

    @cached_property
    def _exact(self) -> _Layers:
        return _Layers(
            exponents=self.exponents,
            projection=self.projection,
            offset=self.offset,
            vector_squares=np.square(self.vectors).sum(axis=1),
            minus_twice_vectors=np.ascontiguousarray(-2.0 * self.vectors.T),
            classes=np.eye(len(self.classes))[self.labels],
            weights=self.weights,
            biases=self.biases,
        )

    @cached_property
    def _quick(self) -> _Layers:
        return _Layers(*(layer.astype(np.float32) for layer in self._exact))

    @classmethod
    def load(cls, path: Path) -> GenreHead:
        """Read a head. Raises ReleaseError where the file is not one."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays: dict[str, Any] = {name: file[name] for name in file.files}
            return cls._of(arrays)
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ReleaseError(f"{path} is not a genre head ({type(error).__name__}); {_ADVICE}") from error

    @classmethod
    def _of(cls, arrays: Mapping[str, Any]) -> GenreHead:
        values = {field.name: arrays[field.name] for field in fields(cls) if field.name not in (*_PARTS, "widths")}
        for name in ("classes", "inputs"):
            values[name] = _texts(values[name])
        for name in ("gamma", "temperature", "min_confidence", "max_distance"):
            if values[name].dtype != np.float64 or values[name].shape != ():
                raise ReleaseError(f"{name} of the genre head is not one float64; {_ADVICE}")
            values[name] = float(values[name])
        if kinds := _under("kinds", arrays):
            kinds |= {"network": str(kinds["network"]), "names": _texts(kinds["names"])}
            values["kinds"] = TagKinds(**kinds)
        if several := _under("several", arrays):
            values["several"] = LabelRule(**several)
        if plain := _under("plain", arrays):
            values["plain"] = cls._of(plain)
        if "widths" in arrays:
            values["widths"] = tuple(int(width) for width in arrays["widths"])
        return cls(**values)

    def to_bytes(self) -> bytes:
        """The npz file; the same bytes for the same head."""
        file = io.BytesIO()
        np.savez(file, **self._arrays())
        return file.getvalue()

    def _arrays(self) -> dict[str, Any]:
        """What the file holds; the arrays of a part have its name and a dot in front."""
        left_out = _PARTS if self.widths else (*_PARTS, "widths")
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in left_out}
        for name, part in (("kinds", self.kinds), ("several", self.several)):
            if part:
                values |= {f"{name}.{field.name}": getattr(part, field.name) for field in fields(part)}
        if self.plain:
            values |= {f"plain.{name}": array for name, array in self.plain._arrays().items()}
        return {name: np.asarray(value) for name, value in values.items()}

    def stack(self, windows: Sequence[Mapping[str, Float32]]) -> Float64:
        """The features of windows side by side, in the order of the head's inputs.

        Args:
            windows: each a vector by the name of its feature (models.features); others than the inputs are ignored.

        Returns:
            (windows, columns).

        Raises:
            ReleaseError: an input is missing.
        """
        rows = [np.concatenate([_feature(window, name) for name in self.inputs]) for window in windows]
        return np.stack(rows).astype(np.float64)

    def shares(self) -> dict[str, float]:
        """Share of each genre among the training tracks; empty of a head of several labels, which does not tell."""
        if self.several:
            return {}
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, (counts / len(self.labels)).tolist(), strict=True))

    def scores(self, features: Float) -> Scores:
        """What the head computes of windows (windows, columns).

        With float32 features it computes in float32, twice as fast; decision values then differ by about 1e-5.

        Raises:
            ReleaseError: another number of columns, no window, or values that are not finite.
        """
        if features.ndim != 2 or len(features) == 0 or features.shape[1] != len(self.exponents):
            raise ReleaseError(f"the genre head takes (windows, {len(self.exponents)}) features, got {features.shape}")
        if not np.isfinite(features).all():
            raise ReleaseError("the features for the genre head are not finite numbers; compute them again")
        layers = self._quick if features.dtype == np.float32 else self._exact
        raised = np.sign(features) * np.abs(features) ** layers.exponents
        points = raised @ layers.projection + layers.offset
        squares = points @ layers.minus_twice_vectors
        squares += layers.vector_squares
        squares += np.square(points).sum(axis=1, keepdims=True)
        np.maximum(squares, 0.0, out=squares)  # rounding leaves some a little below
        nearest = np.partition(squares, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        near = (squares <= nearest.max(axis=1, keepdims=True)).astype(squares.dtype)
        squares *= -self.gamma
        decisions = np.exp(squares, out=squares) @ layers.weights + layers.biases
        return Scores(decisions, np.sqrt(nearest).mean(axis=1), near @ layers.classes)

    def probabilities(self, decision: Float64) -> Float64:
        """Calibrated probabilities of decision values (..., classes), the same shape."""
        if self.several:
            return self.several.probabilities(decision)
        scaled = decision / self.temperature
        raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return raised / raised.sum(axis=-1, keepdims=True)

    def answered(self, probabilities: Float64) -> NDArray[np.bool_]:
        """Which classes are probable enough to be answered, of probabilities (..., classes); the same shape."""
        return self.several.answered(probabilities) if self.several else probabilities >= self.min_confidence

    def decide(self, windows: Sequence[Mapping[str, Float32]]) -> GenreDecision:
        """Say what a track is.

        Args:
            windows: of the track, as `stack` takes them. Each is scored as the clips of the training were, the
                decision values are averaged, and the average is calibrated.

        Raises:
            ReleaseError: as `stack` and `scores`.
        """
        if self.plain is not None and any(name not in window for window in windows for name in self.inputs):
            return self.plain.decide(windows)
        tags = np.stack([_feature(window, self.kinds.feature) for window in windows]) if self.kinds else None
        return self.decide_all(self.stack(windows), tags, windows=np.array([len(windows)]))[0]

    def decide_all(self, features: Float, tags: Float | None, *, windows: NDArray[np.integer]) -> list[GenreDecision]:
        """Say what many tracks are, as `decide` does of each.

        Args:
            features: (windows, columns) of all windows, those of one track after those of the one before.
            tags: (windows, tags) the feature `kinds.feature` of the same windows; not looked at without kinds.
            windows: (tracks,) how many of the windows are of each track, at least one.

        Raises:
            ReleaseError: as `scores`.
        """
        starts = np.cumsum(windows) - windows
        decisions, distances, votes = self.scores(features)
        probabilities = self.probabilities(_means(decisions, starts, windows))
        distance, votes = _means(distances, starts, windows), np.add.reduceat(votes, starts, axis=0)
        answered = self.answered(probabilities)
        guesses = self._guesses(probabilities, answered)
        sure = np.take_along_axis(answered, guesses[:, None], axis=1)[:, 0]
        outnumbered = np.zeros(len(guesses), bool) if self.several else outvoted(votes, guesses)
        because = np.select([distance > self.max_distance, outnumbered, ~sure], [2, 3, 4], 0)
        ranked = best_first(self.classes, probabilities)
        if self.kinds and tags is not None:
            of_tracks = _means(tags, starts, windows)
            contradicted = np.flatnonzero(self.kinds.contradict(of_tracks, guesses))
            because[contradicted] = 1
            for track, kinds in zip(contradicted.tolist(), self.kinds.ranked(of_tracks[contradicted]), strict=True):
                ranked[track] = kinds
        if self.several:
            for track in np.flatnonzero(because == 0).tolist():
                ranked[track] = self._given(ranked[track], answered[track], int(guesses[track]))
        numbers: list[int] = guesses.tolist()
        reasons: list[int] = because.tolist()
        far_away: list[float] = distance.tolist()
        return [
            GenreDecision(
                genre=None if reason else self.classes[guess],
                guess=self.classes[guess],
                genres=genres,
                distance=far,
                abstained_because=_REASONS[reason],
            )
            for guess, reason, genres, far in zip(numbers, reasons, ranked, far_away, strict=True)
        ]

    def _given(self, ranked: Ranked, answered: NDArray[np.bool_], guess: int) -> Ranked:
        """Of the ranked labels those that are answered, the guess first."""
        given = {self.classes[number] for number in np.flatnonzero(answered)}
        labels = [pair for pair in ranked if pair[0] in given]
        return tuple(sorted(labels, key=lambda pair: pair[0] != self.classes[guess]))

    def _guesses(self, probabilities: Float64, answered: NDArray[np.bool_]) -> Int64:
        """(tracks,) the most probable class; of several labels that are answered, the most probable of the finest."""
        if self.several:
            asked = np.where(answered.any(axis=1, keepdims=True), self.several.finest(answered), True)
            probabilities = np.where(asked, probabilities, -1.0)
        return probabilities.argmax(axis=1)


_REASONS: tuple[Literal["tags", "distance", "neighbours", "confidence"] | None, ...] = (
    None, "tags", "distance", "neighbours", "confidence"
)  # fmt: skip
_PARTS = ("kinds", "several", "plain")


def outvoted(votes: Float, guesses: Int64) -> NDArray[np.bool_]:
    """Whether more of the nearest training tracks are of another genre than of the guess.

    Args:
        votes: (..., classes) training tracks near by.
        guesses: (...) class numbers.

    Returns:
        (...)
    """
    return votes.max(axis=-1) > np.take_along_axis(votes, guesses[..., None], axis=-1)[..., 0]


def _means(rows: NDArray[np.floating], starts: NDArray[np.integer], windows: NDArray[np.integer]) -> Float64:
    """(tracks, ...) the means over the windows of each track, of rows (windows, ...) and the first window of each."""
    sums = np.add.reduceat(rows, starts, axis=0, dtype=np.float64)
    return sums / windows.reshape(-1, *[1] * (rows.ndim - 1))


def _feature(window: Mapping[str, Float32], name: str) -> Float32:
    try:
        return window[name]
    except KeyError:
        raise ReleaseError(
            f"the genre head hears {name}, the windows give {', '.join(window)}; "
            "run the musicnn models that the head was trained on"
        ) from None


def _texts(array: NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in array.ravel())


def _under(part: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(f"{part}."): array for name, array in arrays.items() if name.startswith(f"{part}.")}
