"""Where the item vectors of a user tower start: close to the tracks that the same people listen to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from models.history import IS_USABLE
from offline.interactions.log import InteractionLog
from offline.interactions.splits import Split, in_training


def spectral_start(
    log: InteractionLog, split: Split, row_of: NDArray[np.int64], *, items: int, dim: int, seed: int
) -> NDArray[np.float32]:
    """Item vectors of unit norm from the singular value decomposition of who listened to what.

    The matrix has a row for each user and a column for each track, divided by the root of how many listened to it; a
    track's vector is its right singular vector times the root of the singular values (Levy, Goldberg & Dagan, Improving
    Distributional Similarity with Lessons Learned from Word Embeddings, TACL 2015, on that root). Their cosine is
    close to that of an item kNN.

    Args:
        log: the log.
        split: only its training part is looked at.
        row_of: (tracks,) places among the items; -1 of a track that is none.
        items: how many.
        dim: of taste space.
        seed: of the randomised decomposition.
    """
    used = in_training(log, split) & IS_USABLE[log.signal] & (row_of[log.track] >= 0)
    until = np.concatenate([[0], np.cumsum(used)])[log.offsets]
    tracks = row_of[log.track[used]].astype(np.int32)
    shape = (len(log.users), items)
    heard = sparse.csr_array((np.ones(len(tracks), np.float32), tracks, until.astype(np.int64)), shape=shape)
    heard.sum_duplicates()
    heard.data[:] = 1.0
    heard.data /= np.sqrt(np.bincount(heard.indices, minlength=items)).astype(np.float32)[heard.indices]
    rng = np.random.default_rng(seed)
    vectors = rng.normal(scale=0.01, size=(items, dim)).astype(np.float32)  # of tracks that nobody shares
    most = min(dim, *shape)
    _, strengths, directions = randomized_svd(heard, most, n_iter=6, random_state=seed)  # type: ignore[arg-type]
    vectors[:, :most] += directions.T * np.sqrt(strengths)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
