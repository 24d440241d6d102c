"""What a pool process may say to the worker."""

import msgspec
import pytest

from models.events import WindowFeatures
from models.tagging import Tagging
from stream.audio.messages import Message, Ready, Refused

TAGGING = Tagging(
    status="tagged",
    genre="jazz",
    confidence=0.8,
    genres=(("jazz", 0.8), ("blues", 0.2)),
    tags=(("sax", 0.9),),
    taggram=b"TWTG\x01\x01\x01\x00\xe6",
    windows={"msd": (WindowFeatures(start_ms=0, max_pool=b"\0<", taggram_mean=b"", taggram_spread=b""),)},
    duration_s=3.2,
    lost_s=0.0,
    timings_ms={"decode": 1.5},
)


@pytest.mark.parametrize(
    "message",
    [
        Ready({"rlimit": True}),
        Ready({"rlimit": True}, 40),
        TAGGING,
        msgspec.structs.replace(TAGGING, embedding=(0.6, 0.8)),
        Refused("NotAudio", "no decoder reads it"),
    ],
)
def test_each_message_comes_out_as_it_went_in(message: Message) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message) == message


@pytest.mark.parametrize(
    "sent",
    [
        {"type": "Tagging"},
        {"type": "Ready", "guards": {"rlimit": "yes"}},
        {"type": "Refused", "error": "NotAudio", "message": b"\xff"},
        {"type": "Popen", "args": ["sh"]},
        ["Ready", {}],
        msgspec.to_builtins(TAGGING) | {"status": "failed"},
        msgspec.to_builtins(TAGGING) | {"embedding": [0.6, 0.7]},
        msgspec.to_builtins(TAGGING) | {"embedding": [float("nan"), 1.0]},
        msgspec.to_builtins(TAGGING) | {"embedding": []},
    ],
)
def test_what_is_none_of_the_messages_is_not_read(sent: object) -> None:
    with pytest.raises(msgspec.MsgspecError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=Message)
