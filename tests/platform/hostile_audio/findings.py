"""Inputs that crashed a decoder once, found by fuzzing or by reading the code it pointed at."""

import base64
import io
import struct
from collections.abc import Callable, Iterator
from functools import partial

import av
import numpy as np

from tests.platform.hostile_audio.containers import atom, replaced
from tests.platform.hostile_audio.inputs import HEARD, RATE, REFUSED, Hostile
from tests.platform.music import music


def findings() -> Iterator[Hostile]:
    """Inputs that once crashed."""

    def finding(name: str, make: Callable[[], bytes], outcomes: frozenset[str]) -> Hostile:
        return Hostile("findings", f"found-{name}", make, outcomes)

    # PyAV read beyond the last plane of frames of 8 channels and more. The first file has 8; a damaged frame of the
    # second has 43.
    yield finding("eight-channels.m4a", partial(_aac, "7.1"), HEARD)
    yield finding("planes-without-end.aac", partial(bytes, _MANY_CHANNELS), REFUSED)
    # PyAV freed the channel layout twice where the container describes a layout that has no name.
    yield finding("channels-turned.mov", partial(_with_channels, 2, 1), HEARD)
    yield finding("one-channel-twice.mov", partial(_with_channels, 9, 9), HEARD)


def _aac(layout: str) -> bytes:
    channels = av.AudioLayout(layout).nb_channels
    file = io.BytesIO()
    with av.open(file, "w", format="ipod", container_options={"fflags": "+bitexact"}) as writer:
        stream = writer.add_stream("aac", rate=RATE, layout=layout)
        samples = np.repeat(music(seconds=4), channels)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout=layout)
        frame.sample_rate = RATE
        converter = av.AudioResampler(stream.format, layout, RATE, frame_size=stream.frame_size)
        for part in [*converter.resample(frame), *converter.resample(None), None]:
            writer.mux(stream.encode(part))
    return file.getvalue()


def _with_channels(*labels: int) -> bytes:
    """A QuickTime file whose two channels bear these labels."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov", container_options={"fflags": "+bitexact"}) as writer:
        stream = writer.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        samples = (np.repeat(music(seconds=4), 2) * 32_767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate = RATE
        for part in (frame, None):
            writer.mux(stream.encode(part))
    described = [struct.pack(">II", label, 0) + bytes(12) for label in labels]
    channels = atom(b"chan", bytes(12) + struct.pack(">I", len(labels)) + b"".join(described))
    return replaced(file.getvalue(), (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"sowt"), b"chan", channels)


_MANY_CHANNELS = base64.b64decode(
    "//FcQDmf/N4CAExhdmM2Mi4yOC4xMDIAAnCvWGO0jQ0LS2F/xqXyus+N3nnm769/bxF5Jjiqul1ELpN2//Qbq91OYQX0fbSWMzK3LURTLl32E3wz"
    "9P+/SEwEiix2DJyrRuhd0meMiREtwyskjbFO434wROTk5OTk5OTk5OTk5PgvFAAAAAAA5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"
    "8NuQSJORJtwIPFsEIPNyJCzHW2XIm44gATgqAjOwQwGAkRCEmO9tz077Z8q75scc+MHdQrDAle0duSMz0NoAobwBLdu5Tx6QzLIQJViw35E7DA2y"
    "4OpwUpLtcxwBJ1LRWMJESyAMJw8wHCP5X4dwe9w1gZvFTpsYJCYugg7ZbcNnPR5CyV29wiqkKhLHQRhI0oa6ztcYm1sROuUcXya1VWBbPDRiRa21"
    "zsfiNIwltvSlcl6h+B4PHq6Pb6BSRC6Tdv/0G6vdTmEF9H20ljPDty1EUy5d9hN8M/T/v0hMBIosdgycq0boXdJnjIkRLcMrJKmU3yNPo6JWJLfd"
    "DfmNsU7jfjBE5OTl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk"
    "5OTk5OTk5OTk5OTw25BIk5Em3Ag8WwQy83Ikx1tlyJuOIAE4KgIzsEMBgJEQhJjvbc9O+2fKu+bHHPjB3UKwwJXtHbkjMtB8AKG8AS3buU8ekMyy"
    "ECVYsN+ROwwNsuDqcFKS7XMcASdS0VjCRCMMJxwwSw8g+V+HcHvcNYGbxU6bGCQmLoIO2W3DZ0I9yR5dyGzU52TRYiJzAAAAAFuQCUgxE0eiHkoc"
    "XK7CMNBIUYAvrchs1Odk0WLdInMAAAAAW5AJSDETR6IeShxcrsIx0EhRgAAAAC2ocZEhv1BI4LRLLJBpcgkNJg1EUJ3qq0lOvjgpeAAAIQEAAA7/"
    "8VxAAZ/8ARiBtHA="
)
