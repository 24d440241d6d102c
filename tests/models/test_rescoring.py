"""Answers from features against those of the Tagger, which hears the audio."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.contract import decode_taggram
from models.events import TrackFeatures, TrackTagged
from models.features import taggram_features
from models.genre import GenreHead
from models.release import Release, load_release
from models.rescoring import Lacking, Rescorer
from models.tagger import Tagger
from models.tagging import Tagging
from tests.conftest import TowerOf
from tests.models.test_tagger_encoders import head
from tests.platform import taste
from tests.platform.encoders import write_filterbank
from tests.platform.music import write_music

SECONDS = {"short": 5, "one window": 45, "three windows": 100}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, tower_of: TowerOf) -> Release:
    """Its head hears tags, max_pool, the embedding and a foreign network; its tower knows the track `learned`."""
    folder = tmp_path_factory.mktemp("release")
    return load_release(
        taste.write_release(
            folder / "release",
            tower_of(["learned", "other"]),
            audio_encoder=write_filterbank(folder / "encoder", dim=taste.DIM, window_s=10.0),
            blocks={"foreign": write_filterbank(folder / "foreign", dim=7, unit_norm=False, seed=3)},
            head=hearing_all(),
        )
    )


def hearing_all() -> GenreHead:
    """A head of drawn numbers; max_pool, which is about a hundred times as large as the rest, counts as little."""
    inputs = ("msd.taggram.mean", "msd.max_pool", "embedding", "foreign.embedding")
    made = head(*inputs, columns=50 + 753 + 40 + 7, widths=(50, 753, 40, 7), kinds=load_release().genre_head().kinds)
    return replace(made, projection=made.projection * np.repeat([1.0, 0.002, 1.0, 1.0], made.widths)[:, None])


@pytest.fixture(scope="module")
def heard(release: Release, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tagging]:
    folder, tagger = tmp_path_factory.mktemp("music"), Tagger(release)
    files = {name: write_music(folder / f"{s}.wav", seconds=s, seed=s) for name, s in SECONDS.items()}
    heard = {name: tagger.tag(file, track_id=name) for name, file in files.items()}
    return heard | {"learned": tagger.tag(files["short"], track_id="learned")}


def features(release: Release, track_id: str, heard: Tagging, **changes: object) -> TrackFeatures:
    """What a worker of the release publishes of a track, as it comes from Kafka."""
    made = TrackFeatures(
        track_id=track_id, front_end=release.hearing, content_hash="abc", networks=release.network_hashes,
        windows=heard.windows, vectors=heard.vectors, event_time=7, event_id="e7", title="a title", artist_id="a",
    )  # fmt: skip
    value = msgspec.msgpack.encode(msgspec.structs.replace(made, **changes))
    return msgspec.msgpack.decode(value, type=TrackFeatures)


def test_answers_from_features_are_those_of_the_tagger(release: Release, heard: dict[str, Tagging]) -> None:
    tracks = [features(release, name, tagging) for name, tagging in heard.items()]
    answers = Rescorer(release, top_k=10)(tracks, tagged_at=9)
    for answer, (name, tagging) in zip(answers, heard.items(), strict=True):
        assert isinstance(answer, TrackTagged)
        assert (answer.track_id, answer.release, answer.event_time, answer.event_id) == (
            name,
            release.release_id,
            7,
            "e7",
        )
        assert (answer.title, answer.artist_id, answer.tagged_at) == ("a title", "a", 9)
        assert (answer.status, answer.genre, answer.genres_from) == (tagging.status, tagging.genre, tagging.genres_from)
        assert answer.confidence == pytest.approx(tagging.confidence, abs=1e-3)
        assert dict(answer.genres) == pytest.approx(dict(tagging.genres[:10]), abs=1e-3)
        every = dict(tagging.tags)
        assert [p for _, p in answer.tags] == pytest.approx([p for _, p in tagging.tags[:10]], abs=1e-3)
        assert all(p == pytest.approx(every[tag], abs=1e-3) for tag, p in answer.tags)
        np.testing.assert_allclose(answer.embedding, tagging.embedding, atol=1e-6)
    assert len({answer.embedding for answer in answers}) == len(answers)
    assert {len(tagging.windows["msd"]) for tagging in heard.values()} == {1, 3}


def test_tags_are_means_over_patches_where_windows_have_different_many(release: Release, heard) -> None:
    tagging = heard["three windows"]
    (first, *others) = tagging.windows["msd"]
    patches = decode_taggram(tagging.taggram)[:4]  # of the first window, as if it had no more
    mean = taggram_features("msd", patches)["msd.taggram.mean"].astype("<f2").tobytes()
    windows = {"msd": (msgspec.structs.replace(first, patches=4, taggram_mean=mean), *others)}
    (answer,) = Rescorer(release, top_k=5)([features(release, "t", tagging, windows=windows)], tagged_at=9)
    taggram = decode_taggram(tagging.taggram)
    expected = np.sort(np.concatenate([patches, taggram[first.patches :]]).mean(axis=0))[::-1][:5]
    assert [p for _, p in answer.tags] == pytest.approx(expected.tolist(), abs=3e-3)


def damaged(change: Callable[[dict], dict]) -> Callable[[TrackFeatures], TrackFeatures]:
    def changed(track: TrackFeatures) -> TrackFeatures:
        window = track.windows["msd"][0]
        return msgspec.structs.replace(track, windows={"msd": (msgspec.structs.replace(window, **change(window)),)})

    return changed


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda track: msgspec.structs.replace(track, front_end="musicnn-1"), "front end musicnn-1 at -20 LUFS"),
        (lambda track: msgspec.structs.replace(track, networks={"msd": "0123456789ab"}), "network msd"),
        (lambda track: msgspec.structs.replace(track, vectors={}), "audio encoder"),
        (lambda track: msgspec.structs.replace(track, event_id=None), "the upload"),
        (lambda track: msgspec.structs.replace(track, windows={"msd": ()}), "whole"),
        (damaged(lambda window: {"max_pool": window.max_pool[:-2]}), "whole"),
        (damaged(lambda window: {"max_pool": np.full(753, np.inf, "<f2").tobytes()}), "whole"),
        (damaged(lambda window: {"patches": -1}), "whole"),
        (lambda track: msgspec.structs.replace(
            track, vectors={name: (bytes(len(rows[0])),) for name, rows in track.vectors.items()}), "whole"),
        (lambda track: msgspec.structs.replace(
            track, vectors={name: (rows[0][:-4],) for name, rows in track.vectors.items()}), "whole"),
    ],
)  # fmt: skip
def test_features_that_do_not_tell_enough_are_named_and_their_neighbours_are_answered(
    release: Release, heard: dict[str, Tagging], change, what: str
) -> None:
    good = features(release, "good", heard["short"])
    bad = change(features(release, "bad", heard["short"]))
    first, lacking, last = Rescorer(release, top_k=5)([good, bad, good], tagged_at=9)
    assert first == last
    assert isinstance(first, TrackTagged)
    assert isinstance(lacking, Lacking)
    assert lacking.track_id == "bad"
    assert what in lacking.what


def test_an_encoder_counts_by_its_content_and_not_by_its_name_or_place(tmp_path: Path, release: Release) -> None:
    """The block `foreign` of one release is the block `mine` of another, and a wider window is another encoder."""
    same = write_filterbank(tmp_path / "same", dim=7, unit_norm=False, seed=3)
    wider = write_filterbank(tmp_path / "wider", dim=7, unit_norm=False, seed=3, window_s=20.0)
    renamed = load_release(taste.write_release(tmp_path / "renamed", None, blocks={"mine": same}))
    other = load_release(taste.write_release(tmp_path / "other", None, blocks={"mine": wider}))
    of_foreign = release.encoder_hashes_by_feature["foreign.embedding"]
    assert renamed.encoder_hashes_by_feature == {"mine.embedding": of_foreign}
    assert other.encoder_hashes_by_feature["mine.embedding"] != of_foreign


def test_a_track_that_the_tower_knows_needs_no_vector_of_an_encoder_that_the_head_does_not_hear(
    tmp_path: Path, tower_of: TowerOf, heard: dict[str, Tagging]
) -> None:
    encoder = write_filterbank(tmp_path / "encoder", dim=taste.DIM, seed=9)
    release = load_release(taste.write_release(tmp_path / "r", tower_of(["learned", "other"]), audio_encoder=encoder))
    known, unknown = Rescorer(release, top_k=5)(
        [features(release, name, heard["learned"]) for name in ("learned", "short")], tagged_at=9
    )
    assert known.embedding == heard["learned"].embedding
    assert unknown == Lacking("short", f"audio encoder {release.encoder_hashes['audio_encoder.json']}")


def test_the_artist_counts_where_the_release_knows_it_and_the_plain_head_decides_elsewhere(
    tmp_path: Path, heard: dict[str, Tagging]
) -> None:
    release = load_release(
        taste.write_release_that_hears_artists(tmp_path / "release", {"ann": "metal", "bob": "jazz"})
    )
    artists = ["bob", None, "nobody", "ann"]
    tracks = [features(release, f"t{at}", heard["one window"], artist_id=one) for at, one in enumerate(artists)]
    guesses = [answer.genres[0][0] for answer in Rescorer(release, top_k=5)(tracks, tagged_at=9)]
    tagger = release.genre_head().plain
    assert tagger
    window = taggram_features("msd", decode_taggram(heard["one window"].taggram))
    (plain, _), *_ = tagger.decide([window]).genres
    assert guesses == ["jazz", plain, plain, "metal"]


def test_other_windows_are_another_hearing() -> None:
    shipped = load_release()
    configuration = msgspec.structs.replace(shipped.configuration, windows=5)
    other = Release(msgspec.structs.replace(shipped.manifest, configuration=configuration), shipped.folder)
    assert shipped.hearing == shipped.front_end == "musicnn-1 at -20 LUFS"
    assert other.hearing == "musicnn-1 at -20 LUFS, 5 windows of 30 s"
