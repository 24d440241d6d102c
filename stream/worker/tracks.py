"""`tastewave worker tracks`: the pool first, so that its processes load while this one imports Faust."""

from __future__ import annotations

import asyncio
import os

from models.release import load_release
from stream.audio.pool import TaggerPool
from stream.logs import configure_logs
from stream.metrics import POOL_RESTARTS
from stream.settings import Settings


def run_tracks_worker(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        ReleaseError: the release cannot be used.
        WorkerCrashed, SettingsError: as stream.worker.service.serve_tracks.
    """
    configure_logs(settings)
    release = load_release(settings.worker.release)
    pool = TaggerPool(
        str(release.folder),
        processes=settings.pool.size or len(os.sched_getaffinity(0)),
        timeout_s=settings.pool.task_timeout_s,
        memory_mb=settings.pool.task_memory_mb,
        max_duration_s=settings.pool.max_duration_s,
        on_restart=POOL_RESTARTS.inc,
    )
    try:
        pool.launch()
        from stream.worker.service import serve_tracks

        asyncio.run(serve_tracks(settings, release, pool))
    finally:
        pool.stop()
