"""Features of a window: what a genre head may hear of 30 s of audio, and how the features topic carries it.

A feature has the name `<network>.<what>`, and is one float32 vector a window:

| name | width | from the patches of the window |
|---|---|---|
| `<network>.taggram.mean` | 50 | mean of the taggram, 0 to 1 |
| `<network>.taggram.spread` | 50 | standard deviation of the taggram, 0 to 0.5 |
| `<network>.max_pool` | 753 | mean of max_pool, about +-110 |

Audio encoders (models.audio_encoder) give further ones, as wide as a release says:

| name | from the window |
|---|---|
| `embedding` | its place in taste space, by the audio encoder of the release |
| `<name>.embedding` | the vector of a further network of the release |
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.events import WindowFeatures
from models.musicnn import OUTPUTS, MusicnnFeatures

Float32 = NDArray[np.float32]

_WIDTHS = {"taggram.mean": OUTPUTS["tags"], "taggram.spread": OUTPUTS["tags"], "max_pool": OUTPUTS["max_pool"]}


EMBEDDING = "embedding"
"""The feature that lies in the taste space of a release."""


def embedding_of(name: str) -> str:
    """The feature that a further network of a release gives."""
    return f"{name}.{EMBEDDING}"


def feature_width(name: str, embeddings: Mapping[str, int] = MappingProxyType({})) -> int | None:
    """How many values a feature has; None for a name that is none of this module's.

        feature_width("msd.max_pool")                 # 753
        feature_width("embedding")                    # None: its width is that of a release's taste space
        feature_width("embedding", {"embedding": 40}) # 40

    Args:
        name: of the feature, `<network>.<what>`.
        embeddings: how wide the features of a release's audio encoders are.
    """
    return _WIDTHS.get(name.partition(".")[2], embeddings.get(name))


def taggram_features(network: str, taggram: Float32) -> dict[str, Float32]:
    """The features of a window whose taggram alone is known.

    Args:
        network: msd or mtt, the network that gave the taggram.
        taggram: (patches, 50), 0 to 1.

    Returns:
        `<network>.taggram.mean` (50,) and `<network>.taggram.spread` (50,).
    """
    return {f"{network}.taggram.mean": taggram.mean(axis=0), f"{network}.taggram.spread": taggram.std(axis=0)}


def window_features(network: str, patches: MusicnnFeatures) -> dict[str, Float32]:
    """All features of a window from one network: the same in training, in workers and on the features topic.

        window_features("msd", musicnn(log_mel))["msd.max_pool"]  # (753,)

    Args:
        network: msd or mtt, the network that heard the window.
        patches: what it heard in each patch of the window.

    Returns:
        `<network>.taggram.mean` (50,), `<network>.taggram.spread` (50,) and `<network>.max_pool` (753,).
    """
    return taggram_features(network, patches.taggram) | {f"{network}.max_pool": patches.max_pool.mean(axis=0)}


def pack_window(network: str, features: Mapping[str, Float32], *, start_ms: int, patches: int) -> WindowFeatures:
    """The features of a window as the features topic carries them: float16, little-endian.

    Args:
        network: whose features are packed.
        features: of the window, as window_features gives them.
        start_ms: where the window starts in the track.
        patches: how many patches the window has.
    """

    def packed(what: str) -> bytes:
        return features[f"{network}.{what}"].astype("<f2").tobytes()

    return WindowFeatures(
        start_ms=start_ms,
        max_pool=packed("max_pool"),
        taggram_mean=packed("taggram.mean"),
        taggram_spread=packed("taggram.spread"),
        patches=patches,
    )
