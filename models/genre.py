"""The genre head: what musicnn hears in the windows of a track -> a genre, or an abstention.

standardise -> PCA -> RBF support vector machine -> calibrated probabilities, trained by offline.genre.train and
folded into a few numpy arrays: one matrix for the first two steps, one RBF layer for the machine.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import ReleaseError
from models.features import feature_width

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

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
        confidence: probability of the best guess, 0 to 1, abstained or not.
        genres: every genre with its probability, best first; they sum to 1.
        distance: how far the track is from the training tracks (DISTANCE), a mean over its windows.
        abstained_because: the track is too far (distance), or the best guess too unlikely (confidence).
    """

    genre: str | None
    confidence: float
    genres: tuple[tuple[str, float], ...]
    distance: float
    abstained_because: Literal["confidence", "distance"] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class GenreHead:
    """A trained head; the file is an npz of these arrays, so that reading one runs no code.

        head = load_release().genre_head()  # models.release
        window = window_features("msd", musicnn(log_mel))  # models.features
        decision = head.decide(head.stack([window]))
        decision.genre, decision.confidence

    Attributes:
        classes: the genres.
        inputs: names of the features of a window (models.features, or `embedding`) that the head hears, side by side
            in this order: each is a block of columns as wide as the feature.
        exponents: (columns,) what each input value x is raised to: sign(x) |x|^exponent.
        projection: (columns, components) standardisation and PCA in one matrix.
        offset: (components,) to add after the projection.
        vectors: (training tracks, components) the support vectors, in the space of the PCA.
        weights: (training tracks, classes) of the support vectors: a genre's decision value is
            sum_i weights[i, genre] exp(-gamma |z - vectors[i]|^2).
        gamma: of the RBF kernel.
        temperature: probabilities are softmax(decision values / temperature) (Guo et al., On Calibration of
            Modern Neural Networks, ICML 2017).
        min_confidence: the head abstains below this probability of its best guess.
        max_distance: and where the track is farther than this from the training tracks (DISTANCE).

    Raises:
        ReleaseError: the arrays do not fit together, or are not finite.
    """

    classes: tuple[str, ...]
    inputs: tuple[str, ...]
    exponents: Float64
    projection: Float64
    offset: Float64
    vectors: Float64
    weights: Float64
    gamma: float
    temperature: float
    min_confidence: float
    max_distance: float

    def __post_init__(self) -> None:
        columns, components, tracks = len(self.exponents), len(self.offset), len(self.vectors)
        shapes = {
            "exponents": (columns,),
            "projection": (columns, components),
            "offset": (components,),
            "vectors": (tracks, components),
            "weights": (tracks, len(self.classes)),
        }
        for name, shape in shapes.items():
            array: Float64 = getattr(self, name)
            if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
                raise ReleaseError(
                    f"{name} of the genre head is {array.dtype} {array.shape}, not finite float64 {shape}; {_ADVICE}"
                )
        for name in ("gamma", "temperature", "max_distance"):
            if not 0.0 < (value := getattr(self, name)) < np.inf:
                raise ReleaseError(f"{name} of the genre head is {value}, not a positive number; {_ADVICE}")
        if not (0.0 <= self.min_confidence <= 1.0 and tracks >= NEIGHBOURS and self.classes and self.inputs):
            raise ReleaseError(
                f"the genre head has {len(self.classes)} classes, {len(self.inputs)} inputs, {tracks} training tracks "
                f"(at least {NEIGHBOURS}) and min_confidence {self.min_confidence} (0 to 1); {_ADVICE}"
            )
        widths = [feature_width(name) for name in self.inputs]
        known = sum(width or 0 for width in widths)
        if columns != known if None not in widths else columns <= known:
            raise ReleaseError(
                f"the genre head takes {columns} columns, {', '.join(self.inputs)} have {widths}; {_ADVICE}"
            )

    @cached_property
    def _vector_terms(self) -> tuple[Float64, Float64]:
        """|v|^2 (training tracks,) and -2 v (components, training tracks): what |z - v|^2 takes from the vectors."""
        return np.square(self.vectors).sum(axis=1), np.ascontiguousarray(-2.0 * self.vectors.T)

    @classmethod
    def load(cls, path: Path) -> GenreHead:
        """Read a head. Raises ReleaseError where the file is not one."""
        try:
            with np.load(path, allow_pickle=False) as file:
                values: dict[str, Any] = {field.name: file[field.name] for field in fields(cls)}
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ReleaseError(f"{path} is not a genre head ({type(error).__name__}); {_ADVICE}") from error
        for name in ("classes", "inputs"):
            values[name] = tuple(str(value) for value in values[name].ravel())
        for name in ("gamma", "temperature", "min_confidence", "max_distance"):
            if values[name].dtype != np.float64 or values[name].shape != ():
                raise ReleaseError(f"{name} of the genre head is not one float64; {_ADVICE}")
            values[name] = float(values[name])
        return cls(**values)

    def to_bytes(self) -> bytes:
        """The npz file; the same bytes for the same head."""
        file = io.BytesIO()
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        np.savez(file, **arrays)
        return file.getvalue()

    def stack(self, windows: Sequence[Mapping[str, Float32]]) -> Float64:
        """The features of windows side by side, in the order of the head's inputs.

        Args:
            windows: each a vector by the name of its feature (models.features); others than the head's are ignored.

        Returns:
            (windows, columns).

        Raises:
            ReleaseError: an input is missing.
        """
        try:
            return np.stack([np.concatenate([window[name] for name in self.inputs]) for window in windows]).astype(
                np.float64
            )
        except KeyError as error:
            raise ReleaseError(
                f"the genre head hears {error}, the windows give {', '.join(windows[0])}; "
                "run the musicnn models that the head was trained on"
            ) from None

    def scores(self, features: Float64) -> tuple[Float64, Float64]:
        """Decision values (windows, classes) and distances (windows,) of windows (windows, columns).

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
        nearest = np.partition(squares, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        squares *= -self.gamma
        return np.exp(squares, out=squares) @ self.weights, np.sqrt(nearest).mean(axis=1)

    def probabilities(self, decision: Float64) -> Float64:
        """Calibrated probabilities of decision values (..., classes), the same shape."""
        scaled = decision / self.temperature
        raised = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return raised / raised.sum(axis=-1, keepdims=True)

    def decide(self, features: Float64) -> GenreDecision:
        """Say what a track is.

        Args:
            features: (windows, columns) from `stack`: every window of the track is scored as the clips of
                the training were, the decision values are averaged, and the average is calibrated.

        Raises:
            ReleaseError: as `scores`.
        """
        decisions, distances = self.scores(features)
        probabilities = self.probabilities(decisions.mean(axis=0)).tolist()
        ranked = sorted(zip(self.classes, probabilities, strict=True), key=lambda pair: -pair[1])
        genre, confidence = ranked[0]
        distance = float(distances.mean())
        reason: Literal["confidence", "distance"] | None = None
        if distance > self.max_distance:
            reason = "distance"
        elif confidence < self.min_confidence:
            reason = "confidence"
        return GenreDecision(
            genre=None if reason else genre,
            confidence=confidence,
            genres=tuple(ranked),
            distance=distance,
            abstained_because=reason,
        )
