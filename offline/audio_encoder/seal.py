"""A network that is there already as an audio encoder: a folder with it and the manifest that says what it is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from models.audio_encoder import (
    ENCODER_MANIFEST,
    AudioEncoder,
    EncoderManifest,
    LogMelInput,
    WaveformInput,
    load_audio_encoder,
    network_of,
)
from models.errors import SettingsError
from models.onnx_session import open_session
from models.sealed_folder import describe_files
from offline.files import check_replaceable, new_folder, write_json, writing


class SealEncoder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline seal-encoder`."""

    network: Annotated[
        str,
        Meta(
            description="ONNX file. It takes one window as float32, (1, samples) or (1, frames, mels), and gives one "
            "vector, (1, dim)."
        ),
    ]

    out: Annotated[str, Meta(description="Folder of the encoder; one that is there is replaced.")]

    name: Annotated[str, Meta(min_length=1, description="What the network is called.")]

    licence: Annotated[
        str, Meta(min_length=1, description="Licence of its weights; `tastewave release show` prints it.")
    ]

    input: Annotated[
        LogMelInput | WaveformInput,
        Meta(
            description="What it takes: kind (waveform, with sample_rate; or log_mel, with frames and what "
            "mel.sample_rate, mel.n_fft, mel.hop_length, mel.n_mels and so on are, named as in librosa)."
        ),
    ]

    window_s: Annotated[float, Meta(ge=0.1, le=600, description="Length of a window, s.")] = 30.0

    unit_norm: Annotated[
        bool,
        Meta(
            description="Bring its vectors to unit norm, as those of taste space are. Of vectors for a genre head the "
            "length may say something."
        ),
    ] = True

    beside: Annotated[
        tuple[str, ...], Meta(description="Files that go along with it, such as the text of its licence.")
    ] = ()

    training: Annotated[dict[str, Any], Meta(description="How it was made: whatever you want to find again.")] = {}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The encoder that was written."""

    out: Path
    manifest: EncoderManifest

    def lines(self) -> list[str]:
        """One line."""
        return [f"{self.out}: {self.manifest.name}, {self.manifest.dim}-d, {self.manifest.licence}"]


def run(settings: SealEncoder) -> Outcome:
    """Write the folder of an encoder.

    Raises:
        SettingsError: a file is not there, `out` is a folder of something else, or the values contradict each other.
        ReleaseError: the network is not the one that the settings describe, or does not run.
    """
    out = Path(settings.out)
    check_replaceable(out, ENCODER_MANIFEST)
    with writing(out), new_folder(out) as folder:
        shutil.copyfile(settings.network, folder / network_of(ENCODER_MANIFEST))
        for path in map(Path, settings.beside):
            shutil.copyfile(path, folder / path.name)
        seal(
            folder,
            name=settings.name,
            licence=settings.licence,
            takes=settings.input,
            window_s=settings.window_s,
            unit_norm=settings.unit_norm,
            training=settings.training,
        )
    return Outcome(out=out, manifest=load_audio_encoder(out).manifest)


def seal(
    folder: Path,
    *,
    name: str,
    licence: str,
    takes: LogMelInput | WaveformInput,
    window_s: float,
    unit_norm: bool = True,
    training: dict[str, Any],
) -> None:
    """Write the manifest of an encoder whose files are in a folder, and try it on a window of noise.

    Args:
        folder: with audio_encoder.onnx.
        name: as in EncoderManifest, like what follows.
        licence: likewise.
        takes: what the network takes.
        window_s: likewise.
        unit_norm: likewise.
        training: likewise.

    Raises:
        SettingsError: the network is none, gives no vector, or the window is too short for it.
        ReleaseError: the network is not the one that this describes, or does not run.
    """
    path = folder / network_of(ENCODER_MANIFEST)
    try:
        session = open_session(path)
    except Exception as error:
        raise SettingsError(f"{name} is no network that ONNX Runtime loads ({error}); export it to ONNX") from error
    manifest = EncoderManifest(
        name=name,
        licence=licence,
        dim=_dim([tuple(one.shape) for one in session.get_outputs()], name=name),
        input=takes,
        window_s=window_s,
        unit_norm=unit_norm,
        files=describe_files(folder),
        training=training,
    )
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, manifest.samples).astype(np.float32)
    AudioEncoder(manifest, session)([noise])
    write_json(folder / ENCODER_MANIFEST, manifest)


def _dim(outputs: Sequence[tuple[Any, ...]], *, name: str) -> int:
    """The width of the vectors of a network whose outputs have these shapes."""
    if len(outputs) != 1 or len(outputs[0]) != 2 or not isinstance(outputs[0][1], int):
        shown = ", ".join(map(str, outputs))
        raise SettingsError(
            f"{name} gives {shown}, an audio encoder gives one vector (1, dim) of a fixed dim; export it with a mean "
            "over time, and with one output"
        )
    return outputs[0][1]
