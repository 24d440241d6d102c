"""An audio encoder: any ONNX network that gives a vector for a stretch of audio, and a manifest that says how.

    encoder = load_audio_encoder("encoders/mine")
    audio = decode_windows("song.mp3", plan=WindowPlan(), sample_rate=encoder.sample_rate, max_duration_s=3600)
    encoder(audio.waveforms).shape            # (3, 40): of each window
    encoder.embedding(audio.waveforms).shape  # (40,): of the track

The audio encoder of a release gives tracks their place in taste space. Others give a genre head something to hear.
`tastewave-offline seal-encoder` makes one of a network, offline.audio_encoder.export of one that was trained here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from models.demonstration import made_up
from models.errors import ReleaseError, SettingsError, TooShort
from models.mel import MelConfig, log_mel
from models.onnx_session import open_session
from models.sealed_folder import SealedFile, SealedKind, load_sealed

Float32 = NDArray[np.float32]

ENCODER_MANIFEST = "audio_encoder.json"
_ADVICE = "make it again with `tastewave-offline seal-encoder`"
SMALLEST_NORM = 1e-6
"""A vector shorter than this points nowhere."""


class LogMelInput(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="log_mel"):
    """The network takes (1, frames, mels) float32: a log-mel spectrogram in decibels, as models.mel.log_mel gives it.

    Attributes:
        mel: which spectrogram.
        frames: how many of its frames; those of a window that come after them are left out.
    """

    mel: MelConfig
    frames: Annotated[int, Meta(ge=1)]


class WaveformInput(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="waveform"):
    """The network takes (1, samples) float32: the waveform of a window, mono, full scale +-1.

    Attributes:
        sample_rate: Hz.
    """

    sample_rate: Annotated[int, Meta(ge=1_000, le=192_000)]


class EncoderManifest(msgspec.Struct, frozen=True, kw_only=True):
    """audio_encoder.json.

    Attributes:
        name: of the network, for people.
        licence: of its weights, for people; `tastewave release show` prints it.
        dim: width of its vectors.
        input: what it takes.
        window_s: length of one of its windows, s.
        unit_norm: whether its vectors are brought to unit norm, as those of taste space are. Where their length says
            something that a genre head should hear, they are not.
        files: size and SHA-256 of each file: the network, which is called as the manifest and ends with .onnx, and what
            has to go along with it, such as a licence.
        training: how it was made.

    Raises:
        SettingsError: a window has fewer frames than the network takes.
    """

    name: Annotated[str, Meta(min_length=1)]
    licence: Annotated[str, Meta(min_length=1)]
    dim: Annotated[int, Meta(ge=1, le=65_536)]
    input: LogMelInput | WaveformInput
    window_s: Annotated[float, Meta(ge=0.1, le=600)]
    unit_norm: bool = True
    files: dict[str, SealedFile]
    training: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if isinstance(self.input, LogMelInput):
            mel = self.input.mel
            frames = 1 + (self.samples - (0 if mel.center else mel.n_fft)) // mel.hop_length
            if self.input.frames > frames:
                raise SettingsError(
                    f"a window of {self.window_s:g} s has {frames} frames, the network takes {self.input.frames}; "
                    "give a longer window, or fewer frames"
                )

    @property
    def demonstration(self) -> str | None:
        """What has to be said of its taste space, where it was learned from a made-up platform; None elsewhere."""
        return made_up(self.training)

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that are heard, Hz."""
        return self.input.mel.sample_rate if isinstance(self.input, LogMelInput) else self.input.sample_rate

    @property
    def samples(self) -> int:
        """Length of a window at that rate."""
        return round(self.window_s * self.sample_rate)

    @property
    def shape(self) -> tuple[int, ...]:
        """What the network takes at a time."""
        if isinstance(self.input, LogMelInput):
            return 1, self.input.frames, self.input.mel.n_mels
        return 1, self.samples


class AudioEncoder:
    """An audio encoder, loaded and ready; single-threaded, so that a process per core keeps all cores busy.

    Args:
        manifest: what it is.
        session: of ONNX Runtime.

    Raises:
        ReleaseError: the network has other inputs or outputs than the manifest says.
    """

    def __init__(self, manifest: EncoderManifest, session: Any) -> None:
        self.manifest = manifest
        self._session = session
        _check_shapes("input", session.get_inputs(), manifest.shape, manifest.name)
        _check_shapes("output", session.get_outputs(), (1, manifest.dim), manifest.name)
        self._input: str = session.get_inputs()[0].name

    @property
    def sample_rate(self) -> int:
        """Of the waveforms that it takes, Hz."""
        return self.manifest.sample_rate

    def __call__(self, waveforms: Sequence[Float32]) -> Float32:
        """Hear the windows of a track.

        A waveform is cut into windows of the encoder's own length, without overlap; what is left at its end is not
        heard. A shorter one is repeated until it fills one window: then the network hears nothing but the music, where
        it would hear silence in a padded one.

        Args:
            waveforms: (samples,) each, at least one: mono at `sample_rate`, full scale +-1.

        Returns:
            (waveforms, dim), for each the mean over the encoder's windows in it; of unit norm where the manifest says
            so.

        Raises:
            ReleaseError: the network cannot be run, gives vectors of another width or numbers that are not finite; or
                vectors of length 0, which point nowhere, where they should have unit norm.
            TooShort: a waveform has no samples.
            MemoryError: there is not enough memory.
        """
        return np.stack([self._mean([self._hear(part) for part in self._parts(one)]) for one in waveforms])

    def embedding(self, waveforms: Sequence[Float32]) -> Float32:
        """Where a track is in taste space: the mean over its windows, normalised.

        Args:
            waveforms: as __call__ takes them.

        Returns:
            (dim,) of unit norm.

        Raises:
            As __call__.
        """
        return self.mean(self(waveforms))

    def of_log_mels(self, log_mels: Sequence[NDArray[np.floating[Any]]]) -> Float32:
        """Hear the windows of a track by their spectrograms, as a feature store keeps them.

        Args:
            log_mels: (frames, mels) each, at least one: of windows of the encoder's own length, or of shorter ones,
                which are repeated.

        Returns:
            (windows, dim). It is what __call__ gives for the waveforms; of a window that is shorter, within what the
            seams of the repeated one change.

        Raises:
            ReleaseError: as __call__; or the network takes no log-mel.
        """
        taken = self.manifest.input
        if not isinstance(taken, LogMelInput):
            raise ReleaseError(
                f"{self.manifest.name} hears waveforms, and log-mels are what is there; name an encoder that hears them"
            )
        return np.stack([self._place(filled(one, taken.frames).astype(np.float32)) for one in log_mels])

    def mean(self, vectors: Float32) -> Float32:
        """(dim,) of unit norm: the mean of the vectors of a track's windows, normalised."""
        return self._normalised(vectors.mean(axis=0))

    def _parts(self, waveform: Float32) -> list[Float32]:
        samples = self.manifest.samples
        if len(waveform) == 0:
            raise TooShort("the waveform has no samples; give audio")
        if len(waveform) < samples:
            waveform = np.tile(waveform, math.ceil(samples / len(waveform)))
        return [waveform[end - samples : end] for end in range(samples, len(waveform) + 1, samples)]

    def _hear(self, part: Float32) -> Float32:
        # One at a time, as musicnn: a batch is no faster on one core, and takes memory by the length of the track.
        taken = self.manifest.input
        if isinstance(taken, LogMelInput):
            # Rounded as a feature store keeps it, so that a track has one place by its audio and by its store.
            part = log_mel(part, taken.mel)[: taken.frames].astype(np.float16).astype(np.float32)
        return self._place(part)

    def _place(self, part: Float32) -> Float32:
        (vectors,) = self._run(part[None])
        if vectors.shape != (1, self.manifest.dim):
            raise ReleaseError(
                f"the network of {self.manifest.name} gave {vectors.shape} where its manifest says "
                f"{(1, self.manifest.dim)}; {_ADVICE}"
            )
        if not np.isfinite(vectors).all():
            raise ReleaseError(f"the network of {self.manifest.name} gave numbers that are not finite; {_ADVICE}")
        return self._normalised(vectors[0]) if self.manifest.unit_norm else vectors[0]

    def _run(self, taken: Float32) -> list[Float32]:
        try:
            return self._session.run(None, {self._input: np.ascontiguousarray(taken)})
        except Exception as error:
            if "Failed to allocate memory" in str(error):  # it has no error of its own for that
                raise MemoryError(str(error)) from None
            raise ReleaseError(f"the network of {self.manifest.name} cannot be run ({error}); {_ADVICE}") from error

    def _mean(self, vectors: Sequence[Float32]) -> Float32:
        mean = np.mean(vectors, axis=0)
        return self._normalised(mean) if self.manifest.unit_norm else mean

    def _normalised(self, vector: Float32) -> Float32:
        norm = np.linalg.norm(vector)
        if norm < SMALLEST_NORM:
            raise ReleaseError(
                f"the network of {self.manifest.name} gave a vector of length {norm:.1g}, which points nowhere; "
                f"{_ADVICE}"
            )
        return vector / np.float32(norm)


def filled(log_mel: NDArray[Any], frames: int) -> NDArray[Any]:
    """The first so many frames of a spectrogram (frames, mels); one that has fewer is repeated."""
    return log_mel[:frames] if frames <= len(log_mel) else log_mel[np.arange(frames) % len(log_mel)]


def _check_shapes(what: str, found: Sequence[Any], wanted: tuple[int, ...], name: str) -> None:
    """Raise ReleaseError where the inputs or outputs of a network are not one float32 array of this shape."""
    shapes = [(one.type, tuple(one.shape)) for one in found]
    if len(shapes) != 1 or shapes[0][0] != "tensor(float)" or not _can_be(shapes[0][1], wanted):
        shown = ", ".join(f"{kind} {shape}" for kind, shape in shapes)
        raise ReleaseError(
            f"the network of {name} has as {what}s {shown}, its manifest asks for one tensor(float) {wanted}; {_ADVICE}"
        )


def _can_be(shape: tuple[Any, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape of an ONNX network, which has names or None for sizes that it leaves open, allows this one."""
    return len(shape) == len(wanted) and all(
        size == want for size, want in zip(shape, wanted, strict=True) if isinstance(size, int)
    )


def network_of(manifest_name: str) -> str:
    """The name of the network's file beside a manifest of this name."""
    return Path(manifest_name).stem + ".onnx"


def load_audio_encoder(where: str | Path, *, manifest_name: str = ENCODER_MANIFEST) -> AudioEncoder:
    """Read and verify an audio encoder.

        encoder = load_audio_encoder("encoders/mine")
        encoder.manifest.dim, encoder.manifest.licence

    Args:
        where: its folder, or an fsspec URL of one.
        manifest_name: another one where a folder holds several encoders, as a release may.

    Raises:
        ReleaseError: it is missing, damaged, or its parts do not fit together.
    """
    network = network_of(manifest_name)

    def check(manifest: EncoderManifest, shown: str) -> None:
        if network not in manifest.files:
            raise ReleaseError(f"{manifest_name} of {shown} does not list {network}; {_ADVICE}")

    def make(manifest: EncoderManifest, folder: Path) -> AudioEncoder:
        try:
            session = open_session(folder / network)
        except Exception as error:
            raise ReleaseError(f"{folder / network} cannot be loaded ({error}); {_ADVICE}") from error
        return AudioEncoder(manifest, session)

    kind = SealedKind(what="an audio encoder", manifest=manifest_name, decode=_decode, check=check, advice=_ADVICE)
    return load_sealed(where, kind, make=make)


def read_encoder_manifest(path: Path) -> EncoderManifest:
    """The manifest of an encoder in a folder that is known to be whole, without its network.

    Raises:
        ReleaseError: it is none.
    """
    try:
        return _decode(path.read_bytes(), str(path))
    except (OSError, msgspec.MsgspecError) as error:
        raise ReleaseError(f"{path} is not the manifest of an audio encoder ({error}); {_ADVICE}") from None


def _decode(content: bytes, shown: str) -> EncoderManifest:
    try:
        return msgspec.json.decode(content, type=EncoderManifest)
    except SettingsError as error:  # of what it says of windows and spectrograms
        raise ReleaseError(f"the manifest of {shown} contradicts itself: {error}; {_ADVICE}") from None
