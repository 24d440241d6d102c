"""The recipe of the reference repository, sklearn-audio-transfer-learning by Jordi Pons and Xavier Favory.

max_pool of musicnn's MSD network for each patch of 3 s, a patch each second, brought to 128 dimensions by a PCA with
whitening, an RBF support vector machine of C = 1 on the patches, and for a track what most of its patches are called.
Columns are not standardised. It published .7724 on GTZAN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.svm import SVC

from offline.features.store import FeatureStore

Int64 = NDArray[np.int64]

NETWORK = "msd"
HOP_FRAMES = 61
"""One second as musicnn.extractor rounds it: (16000 - 256) // 256 frames of 16 ms."""
_COMPONENTS = 128


def reference_guesses(
    store: FeatureStore, train: Sequence[str], labels: Int64, test: Sequence[str], *, most_patches: int
) -> tuple[Int64, int]:
    """Learn from tracks, and guess the genre of others.

    Args:
        store: with max_pool of patches, HOP_FRAMES apart.
        train: ids of tracks.
        labels: (train,) class numbers of these.
        test: ids of the tracks to guess.
        most_patches: where the training tracks have more, one in so many is learned from.

    Returns:
        (test,) class numbers, and of how many patches one was learned from.
    """
    learned = [_patches(store, track) for track in train]
    every = math.ceil(sum(map(len, learned)) / most_patches)
    learned = [patches[::every] for patches in learned]
    points = np.concatenate(learned).astype(np.float64)
    pca = PCA(min(_COMPONENTS, *points.shape), whiten=True, svd_solver="full").fit(points)
    machine = SVC(C=1.0, kernel="rbf", gamma="scale")
    machine.fit(pca.transform(points), np.repeat(labels, list(map(len, learned))))
    guesses = [machine.predict(pca.transform(_patches(store, track).astype(np.float64))) for track in test]
    return np.array([majority(of_patches) for of_patches in guesses], np.int64), every


def majority(guesses: Int64) -> int:
    """The class that is named most often; of equals the first, as in the reference."""
    return int(np.bincount(guesses).argmax())


def _patches(store: FeatureStore, track: str) -> NDArray[np.float16]:
    windows = range(len(store[track].starts_ms))
    return np.concatenate([store.patch_max_pool(track, NETWORK, window) for window in windows])
