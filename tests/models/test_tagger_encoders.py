"""What the audio encoders of a release add to what is heard of a track."""

import io
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

from models.audio.loudness import gain_to
from models.audio.windows import WindowPlan, decode_windows
from models.errors import ReleaseError
from models.genre import GenreHead
from models.mel import musicnn_log_mel
from models.release import load_release
from models.tagger import Tagger
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.encoders import filterbank, write_filterbank

RATE = 44_100
LUFS = -20.0  # of the shipped release


@pytest.fixture(scope="module")
def track() -> bytes:
    """100 s that change all the time, and have something above 8 kHz."""
    t = np.arange(100 * RATE) / RATE
    tones = np.sin(2 * np.pi * (200 * t + 3 * t**2)) + 0.4 * np.sin(2 * np.pi * (9_000 + 20 * t) * t)
    beat = np.random.default_rng(0).standard_normal(len(t)) * np.exp(-(t % 0.5) * 20)
    file = io.BytesIO()
    soundfile.write(file, 0.1 * tones + 0.1 * beat, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.fixture(scope="module")
def tower(tower_of: TowerOf) -> Path:
    return tower_of(["known", "other"])


def windows(track: bytes, rate: int) -> list[np.ndarray]:
    """What an encoder at this rate hears: the release's windows, as loud as the release hears them."""
    at = {
        sample_rate: decode_windows(track, plan=WindowPlan(), sample_rate=sample_rate, max_duration_s=1000).waveforms
        for sample_rate in (16_000, rate)
    }
    gain = gain_to(LUFS, at[16_000], sample_rate=16_000)
    return [waveform * gain for waveform in at[rate]]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def head(*inputs: str, columns: int, seed: int = 0, **changes: object) -> GenreHead:
    """A head of drawn numbers for the genres of the shipped release, which never abstains."""
    classes = load_release().configuration.genres
    rng, tracks = np.random.default_rng(seed), 30
    return GenreHead(
        **{
            "classes": classes,
            "inputs": inputs,
            "exponents": np.ones(columns),
            "projection": rng.normal(size=(columns, 4)),
            "offset": np.zeros(4),
            "vectors": rng.normal(size=(tracks, 4)),
            "labels": np.arange(tracks) % len(classes),
            "weights": rng.normal(size=(tracks, len(classes))),
            "biases": np.zeros(len(classes)),
            "gamma": 0.05,
            "temperature": 0.5,
            "min_confidence": 0.0,
            "max_distance": 1e9,
        }
        | changes
    )


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_a_tracks_embedding_is_the_normalised_mean_over_its_windows_at_the_encoders_rate(
    tmp_path: Path, track: bytes, rate: int
):
    encoder = write_filterbank(tmp_path / "encoder", dim=40, sample_rate=rate)
    release = load_release(taste.write_release(tmp_path / "release", None, audio_encoder=encoder))
    tagging = Tagger(release).tag(track)
    expected = unit(sum(unit(filterbank(window, 40)) for window in windows(track, rate)))
    assert len(windows(track, rate)) == 3
    np.testing.assert_allclose(tagging.embedding, expected, atol=1e-5)
    assert list(tagging.timings_ms) == ["decode", "log_mel", "network", "encoder", "genre"]


def test_genre_and_tags_are_those_of_the_release_without_the_encoder(tmp_path: Path, track: bytes):
    encoder = write_filterbank(tmp_path / "encoder", dim=40, sample_rate=24_000)
    release = load_release(taste.write_release(tmp_path / "release", None, audio_encoder=encoder))
    with_encoder, without = Tagger(release).tag(track), Tagger(load_release()).tag(track)
    plain = {"embedding": None, "timings_ms": {}}
    assert msgspec.structs.replace(with_encoder, **plain) == msgspec.structs.replace(without, **plain)
    assert without.embedding is None


def test_a_foreign_network_can_be_a_block_of_the_genre_head(tmp_path: Path, track: bytes):
    block = write_filterbank(tmp_path / "foreign", dim=7, sample_rate=24_000, window_s=10.0, unit_norm=False)
    made = head("msd.taggram.mean", "foreign.embedding", columns=57)
    where = taste.write_release(tmp_path / "release", None, blocks={"foreign": block}, head=made)
    release = load_release(where)
    assert release.configuration.blocks == {"foreign": "block-foreign.json"}
    tagging = Tagger(release).tag(track)

    network = release.network("msd")
    rows = [
        {
            "msd.taggram.mean": network(musicnn_log_mel(heard)).taggram.mean(axis=0),
            "foreign.embedding": np.mean(
                [filterbank(part, 7) for part in np.split(foreign, 3)], axis=0
            ).astype(np.float32),
        }
        for heard, foreign in zip(windows(track, 16_000), windows(track, 24_000), strict=True)
    ]  # fmt: skip
    expected = made.decide(rows)
    assert dict(tagging.genres) == pytest.approx(dict(expected.genres), abs=1e-4)
    other = [row | {"foreign.embedding": row["foreign.embedding"] * 0} for row in rows]
    assert dict(made.decide(other).genres) != pytest.approx(dict(expected.genres), abs=1e-2)
    assert tagging.embedding is None


def test_where_the_release_gives_no_embedding_the_plain_head_decides(tmp_path: Path, track: bytes):
    plain = head("msd.taggram.mean", columns=50, seed=1)
    whole = head("embedding", "msd.taggram.mean", columns=90, plain=plain)
    encoder = write_filterbank(tmp_path / "encoder", dim=40)

    def genres(name: str, **parts: object) -> dict[str, float]:
        return dict(Tagger(load_release(taste.write_release(tmp_path / name, None, **parts))).tag(track).genres)

    by_plain = genres("plain", head=plain)
    assert genres("without", head=whole) == by_plain
    assert genres("with", head=whole, audio_encoder=encoder) != pytest.approx(by_plain, abs=1e-2)


def test_a_track_that_the_tower_knows_has_the_place_that_was_learned(tmp_path: Path, tower: Path, track: bytes):
    encoder = write_filterbank(tmp_path / "encoder", dim=40)
    tagger = Tagger(load_release(taste.write_release(tmp_path / "release", tower, audio_encoder=encoder)))
    items = load_release(tmp_path / "release").user_tower().items
    learned = items.vectors[items.rows(["known"])[0]]
    np.testing.assert_array_equal(np.float32(tagger.tag(track, track_id="known").embedding), learned)
    heard = unit(sum(unit(filterbank(window, 40)) for window in windows(track, 16_000)))
    for track_id in ("new", None):
        np.testing.assert_allclose(tagger.tag(track, track_id=track_id).embedding, heard, atol=1e-5)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"dim": 39}, "gives 39 dimensions with unit_norm true, the taste space of the release has 40 with unit norm"),
        ({"dim": 40, "unit_norm": False}, "gives 40 dimensions with unit_norm false"),
    ],
)
def test_an_encoder_of_another_space_than_the_tower_is_refused(tmp_path: Path, tower: Path, made: dict, message: str):
    encoder = write_filterbank(tmp_path / "encoder", **made)
    release = load_release(taste.write_release(tmp_path / "release", tower, audio_encoder=encoder))
    with pytest.raises(ReleaseError, match=message):
        Tagger(release)


def test_a_head_that_hears_wider_blocks_than_the_release_gives_is_refused(tmp_path: Path):
    block = write_filterbank(tmp_path / "foreign", dim=7)
    made = head("msd.taggram.mean", "foreign.embedding", columns=58)
    release = load_release(taste.write_release(tmp_path / "release", None, blocks={"foreign": block}, head=made))
    with pytest.raises(ReleaseError, match=r"takes 58 columns, msd.taggram.mean, foreign.embedding have \[50, 7\]"):
        Tagger(release)
    plain = replace(made, plain=head("foreign.embedding", columns=6))
    release = load_release(taste.write_release(tmp_path / "plain", None, blocks={"foreign": block}, head=plain))
    with pytest.raises(ReleaseError, match="takes 5"):
        Tagger(release)


def test_a_release_that_lacks_a_file_of_an_encoder_is_refused(tmp_path: Path):
    block = write_filterbank(tmp_path / "foreign", dim=7)
    where = taste.write_release(tmp_path / "release", None, blocks={"foreign": block})
    (where / "block-foreign.onnx").unlink()
    with pytest.raises(ReleaseError, match=r"block-foreign\.onnx is missing"):
        load_release(where)
