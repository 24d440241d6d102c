"""musicnn (Pons & Serra, 2019), the tagging network behind genres and embeddings, through ONNX Runtime.

offline.musicnn.convert makes the ONNX files from the published checkpoints. Whatever else computes the same from a
log-mel spectrogram can take the place of `Musicnn`: it is called with (frames, 96) and gives MusicnnFeatures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import ReleaseError
from models.mel import PATCH_FRAMES, Float32, patches
from models.onnx_session import open_session

OUTPUTS = {"tags": 50, "max_pool": 753, "mean_pool": 753, "penultimate": 200}
"""The network's outputs and their widths, in the order of the ONNX files."""

# fmt: off
TAGS: Mapping[str, tuple[str, ...]] = {
    "msd": (
        "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock",
        "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow",
        "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock",
        "ambient", "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country",
        "easy listening", "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock", "60s", "rnb",
        "indie pop", "sad", "House", "happy",
    ),
    "mtt": (
        "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
        "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals",
        "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo",
        "man", "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello",
        "no voice", "weird", "country", "metal", "female voice", "choral",
    ),
}
"""The 50 tags of each published network (MSD: Million Song Dataset, MTT: MagnaTagATune), in its output order."""
# fmt: on


@dataclass(frozen=True, kw_only=True, eq=False)
class MusicnnFeatures:
    """What musicnn hears in a track, a row per patch, all float32.

    Attributes:
        taggram: (patches, 50), the probability of each tag, 0 to 1.
        max_pool: (patches, 753), the network's features at their maximum over the patch, about +-110.
        mean_pool: (patches, 753), the same at their mean.
        penultimate: (patches, 200), the layer that the tags are computed from.
    """

    taggram: Float32
    max_pool: Float32
    mean_pool: Float32
    penultimate: Float32

    @property
    def tags(self) -> Float32:
        """(50,) probabilities: the mean of the taggram over its patches."""
        return self.taggram.mean(axis=0)


class Musicnn:
    """One musicnn network, loaded and ready; single-threaded, so that a process per core keeps all cores busy.

        musicnn = load_release().network("msd")  # models.release
        patches = musicnn(musicnn_log_mel(waveform))  # models.mel
        patches.taggram.shape  # (10, 50) for 30 s

    Args:
        model: an ONNX file as offline.musicnn.convert writes it, its path or its bytes.

    Raises:
        ReleaseError: it is not one.
    """

    def __init__(self, model: str | Path | bytes) -> None:
        try:
            # more optimisation makes this graph no faster, and its loading slower
            self._session = open_session(model, optimise=False)
        except Exception as error:
            raise ReleaseError(
                f"the musicnn network cannot be loaded ({error}); "
                "convert it again with `tastewave-offline convert-musicnn`"
            ) from error
        outputs = {output.name: output.shape[-1] for output in self._session.get_outputs()}
        if outputs != OUTPUTS:
            raise ReleaseError(
                f"an ONNX file of musicnn gives {OUTPUTS}, this one gives {outputs}; "
                "convert it again with `tastewave-offline convert-musicnn`"
            )

    def __call__(self, log_mel: Float32, *, hop: int = PATCH_FRAMES) -> MusicnnFeatures:
        """Hear a track.

        Args:
            log_mel: (frames, 96) from models.mel.musicnn_log_mel.
            hop: frames from one patch to the next; PATCH_FRAMES leaves no overlap.

        Returns:
            One row for each whole patch.

        Raises:
            TooShort: there is not one whole patch (3 s).
            MemoryError: there is not enough memory.
        """
        # One patch at a time: what a batch keeps between the layers does not fit in the caches.
        rows = [self._run(patch) for patch in patches(log_mel, hop)]
        taggram, max_pool, mean_pool, penultimate = (np.concatenate(output) for output in zip(*rows, strict=True))
        return MusicnnFeatures(taggram=taggram, max_pool=max_pool, mean_pool=mean_pool, penultimate=penultimate)

    def _run(self, patch: Float32) -> list[NDArray[np.float32]]:
        try:
            return self._session.run(list(OUTPUTS), {"log_mel": patch[None]})
        except Exception as error:
            if "Failed to allocate memory" in str(error):  # it has no error of its own for that
                raise MemoryError(str(error)) from None
            raise
