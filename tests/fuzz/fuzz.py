"""Fuzz what strangers' bytes reach first: `python tests/fuzz/fuzz.py decode|events [--minutes 10]`.

Coverage-guided (atheris over libFuzzer), from the hostile inputs that tests/platform/hostile_audio defines or
from events of the contract. It ends at the first input that crashes the process, hangs, takes too much memory or
raises what callers do not expect, and leaves it in build/fuzz/<entry>/; each belongs into the corpus once mended.
`--again FILE` runs one input.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import atheris
import msgspec

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["av", "models", "soundfile"]):
    import av.logging

    from models.audio.windows import WindowPlan, decode_whole, decode_windows
    from models.errors import AudioError, EventError
    from models.events import JSON_EVENTS, decode_event, encode_event

LONGEST_INPUT_BYTES = 2**18
LONGEST_RUN_S = 30
MEMORY_MB = 1024
PLAN = WindowPlan(count=2, window_s=3)


def decode(data: bytes) -> None:
    """An audio file is heard or refused."""
    for hear in (
        lambda: decode_windows(data, plan=PLAN, sample_rate=16_000, max_duration_s=600.0).waveforms,
        lambda: [decode_whole(data, sample_rate=16_000, max_duration_s=60.0)],
    ):
        try:
            heard = hear()
        except (AudioError, MemoryError):
            continue
        if any(len(waveform) < 3 * 16_000 or not abs(waveform).max() < 32 for waveform in heard):
            raise AssertionError("a waveform is too short, not finite, or beyond all bounds")


def events(data: bytes) -> None:
    """Bytes are an event that encodes to bytes of the same event, or they are refused."""
    for kind in JSON_EVENTS.values():
        try:
            event = decode_event(data, kind)
        except EventError as error:
            str(error).encode()
        else:
            if decode_event(encode_event(event), kind) != event:
                raise AssertionError("an event does not survive its encoding")


def decode_seeds() -> Iterator[bytes]:
    """The hostile inputs that are not too long, and unharmed files."""
    from tests.platform.hostile_audio.canary import Target
    from tests.platform.hostile_audio.corpus import corpus
    from tests.platform.hostile_audio.inputs import FORMATS, unharmed

    yield from (unharmed(suffix, 3.2) for suffix in FORMATS)
    yield from (
        data for hostile in corpus(Target(Path("/canary.aac"), 9)) if len(data := hostile.make()) <= LONGEST_INPUT_BYTES
    )


def events_seeds() -> Iterator[bytes]:
    """An event of each kind, with all of its fields."""
    ids = {"event_id": "e", "track_id": "t", "user_id": "u", "artist_id": "a"}
    times = {
        "uploaded_at": 1_700_000_000_000,
        "at": 1_700_000_000_001,
        "event_time": 3,
        "tagged_at": 4,
        "refreshed_at": 5,
    }
    ranked = {"genres": [["a", 0.5]], "tags": [["b", 1e-3]], "embedding": [0.5, -0.5], "confidence": 0.25}
    rest = {"uri": "file:///a", "title": "\u00e9", "duration_ms": 1, "played_ms": 1, "listens": 1, "revision": 1}
    names = {"release": "r", "genre": "a", "reason": "silent", "source": "history"}
    for chosen in ({"kind": "play"}, {"kind": "like"}, {"status": "tagged"}, {"status": "failed"}):
        yield msgspec.json.encode(ids | times | ranked | rest | names | chosen)


def dictionary() -> Iterator[str]:
    """What mutations are made of: names of fields, and JSON at its edges, as libFuzzer reads them."""
    fields = {field.name for kind in JSON_EVENTS.values() for field in msgspec.structs.fields(kind)}
    numbers = ["1e999", "-0.0", "9223372036854775808", "253402300799999"]
    edges = ["null", "true", r"\ud800", r"\u0000", "[[[[", "]]]]", '{"a":', *numbers]
    for token in [*(f'"{name}":' for name in sorted(fields)), *edges]:
        yield '"' + token.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", choices=["decode", "events"])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--again", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    entry = {"decode": decode, "events": events}[arguments.entry]
    if arguments.again:
        entry(arguments.again.read_bytes())
        return
    findings = ROOT / "build" / "fuzz" / arguments.entry
    findings.mkdir(parents=True, exist_ok=True)
    av.logging.set_level(None)
    with tempfile.TemporaryDirectory() as folder:
        corpus, tokens = Path(folder, "corpus"), Path(folder, "tokens")
        corpus.mkdir()
        tokens.write_text("\n".join(dictionary()))
        for number, data in enumerate(events_seeds() if entry is events else decode_seeds()):
            (corpus / f"{number:04}").write_bytes(data)
        atheris.Setup(
            [
                sys.argv[0],
                str(corpus),
                *([f"-dict={tokens}"] if entry is events else []),
                f"-max_total_time={round(60 * arguments.minutes)}",
                f"-max_len={LONGEST_INPUT_BYTES}",
                f"-timeout={LONGEST_RUN_S}",
                f"-rss_limit_mb={MEMORY_MB}",
                f"-seed={arguments.seed}",
                f"-artifact_prefix={findings}/",
                "-print_final_stats=1",
            ],
            entry,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
