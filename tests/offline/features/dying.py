"""A hearing whose process dies when it comes to a file of a certain name, as a crash of a decoder would end it."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from offline.features.hear import Hearing, Wanted
from offline.spread import Files


@dataclass(frozen=True, kw_only=True)
class DyingHearing(Hearing):
    def __call__(self, shard: Sequence[Wanted]) -> Files:
        if any("deadly" in wanted.uri for wanted in shard):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(shard)
