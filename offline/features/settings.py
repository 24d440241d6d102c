"""What can be set about the features of a catalogue."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from models.mel import ENCODER, PATCH_FRAMES, MelConfig

Count = Annotated[int, Meta(ge=1)]
Lufs = Annotated[float, Meta(ge=-70, le=0)]


class Features(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline features`."""

    catalogue: Annotated[
        str,
        Meta(
            description="A Parquet or CSV file, or an fsspec URL of one, with the columns track_id and uri (or path, "
            "or audio), and artist_id and genre where they are known; or a folder of audio files."
        ),
    ]

    out: Annotated[str, Meta(description="Folder of the store; one that is there is continued.")]

    release: Annotated[
        str | None,
        Meta(
            description="Folder or URL of the release whose windows, loudness and networks are used; the one that "
            "ships with the project when absent."
        ),
    ] = None

    networks: Annotated[
        tuple[str, ...] | None,
        Meta(description="Networks of the release that hear each window, msd or mtt; those that workers run when "
             "absent, none where it is empty."),
    ] = None  # fmt: skip

    patches: Annotated[
        bool, Meta(description="Keep max_pool of each patch of 3 s as well, 1.5 kB a patch and network.")
    ] = False

    patch_hop: Annotated[
        Count,
        Meta(
            description="Frames of 16 ms from one patch to the next, as the networks hear a window; workers leave no "
            "overlap, and trainings of what workers run take no other value."
        ),
    ] = PATCH_FRAMES

    log_mels: Annotated[bool, Meta(description="Keep the log-mel spectrogram of each window, 0.2 MB for 30 s.")] = True

    mel: Annotated[
        MelConfig,
        Meta(
            description="Which spectrogram that is, as the audio encoder hears it; given as a whole: "
            "mel={sample_rate=16000, n_fft=1024, hop_length=512, n_mels=96}."
        ),
    ] = ENCODER

    loudness_lufs: Annotated[
        Lufs | Literal["as_is"] | None,
        Meta(
            description="How loud a track's windows are made before they are heard, LUFS; as_is leaves them as they "
            "are; as the release says when absent.",
        ),
    ] = None

    genre_folders: Annotated[
        bool,
        Meta(description="Of a folder of audio: the first folder below it is the genre of a track, as in GTZAN."),
    ] = False

    genre_column: Annotated[str, Meta(description="Column of the catalogue that has the genre.")] = "genre"

    max_mb: Annotated[Count, Meta(description="Largest audio file, MB.")] = 512

    max_duration_s: Annotated[float, Meta(gt=0, description="Longest track, s.")] = 3 * 3600.0

    max_file_s: Annotated[
        float, Meta(gt=0, description="Longest time that reading and hearing a file may take, s; then it is skipped.")
    ] = 600.0

    tracks_per_shard: Annotated[
        Count,
        Meta(description="Tracks of a shard: what a process has in memory, and what a run that is killed loses of it."),
    ] = 64

    processes: Annotated[
        Count | None, Meta(description="Processes on this machine; one for each core when absent.")
    ] = None

    ray: Annotated[
        str | None,
        Meta(
            description="Address of a Ray cluster that does the work, as ray.init takes it; needs tastewave[ray], and "
            "audio and release at the same place on all nodes."
        ),
    ] = None
