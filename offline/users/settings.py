"""What can be set where users are embedded as of moments."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]


class EmbedUsers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of `tastewave-offline embed-users`."""

    log: Annotated[str, Meta(description="Parquet file, folder, glob or fsspec URL of listens.")]

    moments: Annotated[
        str, Meta(description="Parquet file, folder, glob or fsspec URL of the users and moments: user_id and at.")
    ]

    out: Annotated[str, Meta(description="Parquet file to write.")]

    release: Annotated[
        str | None,
        Meta(
            description="Release with a user tower, or a trained tower: a folder or an fsspec URL. The shipped release "
            "when absent."
        ),
    ] = None

    forgotten: Annotated[
        str | None,
        Meta(
            description="Dump of the topic tastewave.forgotten: a Parquet file, a folder of them, or an fsspec URL. "
            "Listens of who and what was forgotten are left out."
        ),
    ] = None

    history: Annotated[
        Count, Meta(description="Newest listens that workers keep of a user (TASTEWAVE_USER_HISTORY).")
    ] = 64

    feedback: Annotated[
        Count,
        Meta(description="Newest likes, dislikes and excluded tracks that workers keep (TASTEWAVE_USER_FEEDBACK)."),
    ] = 256

    processes: Annotated[
        Count | None, Meta(description="Processes on this machine; one for each core when absent.")
    ] = None

    ray: Annotated[
        str | None,
        Meta(
            description="Address of a Ray cluster that does the work, as ray.init takes it; needs tastewave[ray], and "
            "the release and the folder of OUT_FILE at the same place on all nodes."
        ),
    ] = None
