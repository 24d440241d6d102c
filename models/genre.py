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
from models.tag_kinds import TagKinds

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
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
        votes: (windows, classes) how many of the 5 nearest training tracks are of each genre.
    """

    decisions: Float64
    distances: Float64
    votes: Int64


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
        self.check_widths({})

    def check_widths(self, embeddings: Mapping[str, int]) -> None:
        """Raise ReleaseError where the inputs together are not as wide as what the head takes.

        Args:
            embeddings: width of each feature that the audio encoders and the table of artists of a release give.
        """
        columns, widths = len(self.exponents), [feature_width(name, embeddings) for name in self.inputs]
        known = sum(width or 0 for width in widths)
        if columns != known if None not in widths else columns <= known:
            raise ReleaseError(
                f"the genre head takes {columns} columns, {', '.join(self.inputs)} have {widths}; {_ADVICE}"
            )
        if self.plain:
            self.plain.check_widths(embeddings)

    @cached_property
    def _vector_terms(self) -> tuple[Float64, Float64]:
        """|v|^2 (training tracks,) and -2 v (components, training tracks): what |z - v|^2 takes from the vectors."""
        return np.square(self.vectors).sum(axis=1), np.ascontiguousarray(-2.0 * self.vectors.T)

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
        values = {field.name: arrays[field.name] for field in fields(cls) if field.name not in _PARTS}
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
        return cls(**values)

    def to_bytes(self) -> bytes:
        """The npz file; the same bytes for the same head."""
        file = io.BytesIO()
        np.savez(file, **self._arrays())
        return file.getvalue()

    def _arrays(self) -> dict[str, Any]:
        """What the file holds; the arrays of a part have its name and a dot in front."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _PARTS}
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

    def scores(self, features: Float64) -> Scores:
        """What the head computes of windows (windows, columns).

        Raises:
            ReleaseError: another number of columns, no window, or values that are not finite.
        """
        if features.ndim != 2 or len(features) == 0 or features.shape[1] != len(self.exponents):
            raise ReleaseError(f"the genre head takes (windows, {len(self.exponents)}) features, got {features.shape}")
        if not np.isfinite(features).all():
            raise ReleaseError("the features for the genre head are not finite numbers; compute them again")
        raised = np.sign(features) * np.abs(features) ** self.exponents
        points = raised @ self.projection + self.offset
        vector_squares, minus_twice_vectors = self._vector_terms
        squares = points @ minus_twice_vectors
        squares += vector_squares
        squares += np.square(points).sum(axis=1, keepdims=True)
        np.maximum(squares, 0.0, out=squares)  # rounding leaves some a little below
        nearest = np.argpartition(squares, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        votes = (self.labels[nearest][:, :, None] == np.arange(len(self.classes))).sum(axis=1)
        distances = np.sqrt(np.take_along_axis(squares, nearest, axis=1)).mean(axis=1)
        squares *= -self.gamma
        return Scores(np.exp(squares, out=squares) @ self.weights + self.biases, distances, votes)

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
        decisions, distances, votes = self.scores(self.stack(windows))
        probabilities, distance = self.probabilities(decisions.mean(axis=0)), float(distances.mean())
        answered = self.answered(probabilities)
        guess = self._guess(probabilities, answered)
        genres = self._ranked(probabilities)
        reason: Literal["tags", "distance", "neighbours", "confidence"] | None = None
        if self.kinds and self.kinds.contradict(tags := _mean(windows, self.kinds.feature), np.array([guess]))[0]:
            reason, genres = "tags", self.kinds.ranked(tags[0])
        elif distance > self.max_distance:
            reason = "distance"
        elif not self.several and outvoted(votes.sum(axis=0), np.array(guess)):
            reason = "neighbours"
        elif not answered[guess]:
            reason = "confidence"
        elif self.several:
            given = {name for name, is_given in zip(self.classes, answered.tolist(), strict=True) if is_given}
            labels = (pair for pair in genres if pair[0] in given)
            genres = tuple(sorted(labels, key=lambda pair: pair[0] != self.classes[guess]))
        return GenreDecision(
            genre=None if reason else self.classes[guess],
            guess=self.classes[guess],
            genres=genres,
            distance=distance,
            abstained_because=reason,
        )

    def _guess(self, probabilities: Float64, answered: NDArray[np.bool_]) -> int:
        """The most probable class; of several labels that are answered, the most probable with none within it."""
        if self.several and answered.any():
            return int(np.where(self.several.finest(answered), probabilities, -1.0).argmax())
        return int(probabilities.argmax())

    def _ranked(self, probabilities: Float64) -> tuple[tuple[str, float], ...]:
        pairs = zip(self.classes, probabilities.tolist(), strict=True)
        return tuple(sorted(pairs, key=lambda pair: -pair[1]))


_PARTS = ("kinds", "several", "plain")


def outvoted(votes: Int64, guesses: Int64) -> NDArray[np.bool_]:
    """Whether more of the nearest training tracks are of another genre than of the guess.

    Args:
        votes: (..., classes) training tracks near by.
        guesses: (...) class numbers.

    Returns:
        (...)
    """
    return votes.max(axis=-1) > np.take_along_axis(votes, guesses[..., None], axis=-1)[..., 0]


def _mean(windows: Sequence[Mapping[str, Float32]], name: str) -> Float64:
    """(1, columns): the mean of a feature over the windows."""
    rows = np.stack([_feature(window, name) for window in windows])
    return rows.mean(axis=0, keepdims=True, dtype=np.float64)


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
