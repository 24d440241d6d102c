"""train-genre on short made-up audio, heard by the networks of the shipped release; then a release with that head."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from models.artists import load_artist_table
from models.audio_encoder import load_audio_encoder
from models.errors import ReleaseError, SettingsError
from models.release import DEFAULT, load_release
from models.tagger import Tagger
from offline.cli import cli
from offline.features import extract
from offline.features.settings import Features
from offline.features.store import open_store
from offline.genre.artists import write_artist_table
from offline.genre.catalogue import LabelledFile, labelled_tracks, read_source
from offline.genre.from_audio import run
from offline.genre.head_folder import load_head_folder
from offline.genre.hearing import hear, heard_in, listening
from offline.genre.settings import Block, TrainGenre
from offline.release import build
from offline.release.settings import BuildRelease
from tests.platform.encoders import write_filterbank, write_mean_mel

RATE = 16_000
QUICK = {"folds": 3, "inner_folds": 2, "gammas": (0.1,), "ridges": (0.3,)}


def write_audio(path: Path, *, noisy: bool, seed: int) -> None:
    """3.5 s of a chord, or of beats of noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(3.5 * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * frequency * t) for frequency in 220 * 2 ** (rng.integers(0, 24, 4) / 12))
    beats = rng.standard_normal(len(t)) * np.exp(-(t % 0.25) * rng.uniform(5, 15))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * (beats if noisy else chord), RATE)


@pytest.fixture(scope="module")
def genres(tmp_path_factory) -> Path:
    """Ten tracks each of two genres with names of their own, a text, and the same file twice."""
    folder = tmp_path_factory.mktemp("genres")
    for number in range(10):
        write_audio(folder / "Gamelan & Co" / f"{number}.wav", noisy=False, seed=number)
        write_audio(folder / "power noise" / f"{number}.wav", noisy=True, seed=number)
    (folder / "power noise" / "readme.txt").write_text("no music")
    shutil.copy(folder / "power noise" / "3.wav", folder / "power noise" / "again.wav")
    return folder


@pytest.fixture(scope="module")
def catalogue(genres: Path) -> Path:
    """The same as a catalogue: noise is within `loud`, artists have 2 tracks each."""
    rows = [
        f"{genres / name / str(number)}.wav,{label},{name[0]}{number // 2},{name}{number}"
        for name, label in (("Gamelan & Co", "Gamelan & Co"), ("power noise", "loud---noise"))
        for number in range(10)
    ]
    path = genres.parent / "catalogue.csv"
    path.write_text("\n".join(["path,genre,artist_id,track_id", *rows]) + "\n")
    return path


def store_of(catalogue: Path, out: Path, **settings: Any) -> Path:
    """The features of a catalogue; tracks that a store in `out` has already are not heard again."""
    features = Features(catalogue=str(catalogue), out=str(out), networks=("msd", "mtt"), processes=1, **settings)
    assert extract.run(features).failed == 0
    return out


@pytest.fixture(scope="module")
def features(genres: Path) -> Path:
    """A feature store of the folder."""
    return store_of(genres, genres.parent / "features", genre_folders=True)


@pytest.fixture(scope="module")
def heard(catalogue: Path, features: Path) -> Path:
    """A feature store of the catalogue."""
    return store_of(catalogue, Path(shutil.copytree(features, features.parent / "heard")))


@pytest.fixture(scope="module")
def head(genres: Path, tmp_path_factory) -> tuple[Path, list[str]]:
    """A head that was trained on the folder by the command, and the lines that this printed."""
    out = tmp_path_factory.mktemp("trained") / "head"
    words = ["folds=3", "inner_folds=2", "gammas=[0.1]", "ridges=[0.3]"]
    done = CliRunner().invoke(cli, ["train-genre", str(genres), str(out), *words])
    assert done.exit_code == 0, done.exception
    return out, done.output.splitlines()


def artist_table(folder: Path, dim: int = 5) -> Path:
    """Artists of gamelan, G0 to G4, lie in one direction, and those of noise, p0 to p3, in another."""
    folder.mkdir()
    ids = ["G0", "G1", "G2", "G3", "G4", "p0", "p1", "p2", "p3"]
    vectors = np.random.default_rng(0).normal(0.0, 0.1, (9, dim))
    vectors[:5, 0] += 1.0
    vectors[5:, 1] += 1.0
    write_artist_table(
        folder, ids, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), training={}
    )
    return folder


def test_what_cannot_be_heard_is_told_and_skipped_and_so_are_artists_that_are_not_known(head):
    _, lines = head
    assert lines[0].startswith("skipped ")
    assert "readme.txt: " in lines[0]
    assert lines[1].startswith(
        "the artist of 21 of 21 tracks is not known: tracks of one artist may stand on both sides"
    )
    assert lines[2] == "accuracy 1.000"
    assert lines[-1].startswith("genre head for 2 genres in ")


def test_the_folder_holds_the_head_and_its_figures(head):
    out, _ = head
    folder = load_head_folder(out)
    assert folder.head.classes == ("Gamelan & Co", "power noise")
    assert folder.head.plain is None
    assert folder.artist_files == ()
    assert folder.manifest.training["tracks"] == 21
    assert folder.manifest.training["artists"] == 20  # the same file twice is one
    assert folder.manifest.networks.keys() == {"msd"}
    assert folder.manifest.loudness_lufs == -20
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["confusion"] == [[10, 0], [0, 11]]
    assert figures["classes"]["power noise"]["tracks"] == 11
    assert figures["metrics"] == folder.manifest.metrics
    assert (out / "report.html").read_text().count('<circle cx="') >= 21


def test_a_release_takes_the_head_and_hears_as_its_training_did(head, tmp_path: Path):
    out, _ = head
    arguments = ["build-release", "--out", str(tmp_path / "release"), "--genre-head", str(out)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.exception
    release = load_release(tmp_path / "release")
    assert release.configuration.genres == ("Gamelan & Co", "power noise")
    assert release.configuration.loudness_lufs == -20
    assert release.manifest.metrics == load_head_folder(out).manifest.metrics
    write_audio(tmp_path / "new.wav", noisy=True, seed=99)
    assert Tagger(release).tag(tmp_path / "new.wav").genres[0][0] == "power noise"
    again = build.run(BuildRelease(out=str(tmp_path / "again"), genre_head=str(out))).release
    assert again.release_id == release.release_id


def test_a_head_that_heard_another_network_or_loudness_is_refused(head, tmp_path: Path):
    out, _ = head
    networks = tmp_path / "networks"
    shutil.copytree(DEFAULT, networks)
    (networks / "musicnn-msd.onnx").write_bytes(b"another network")
    with pytest.raises(SettingsError, match=r"the genre head heard the msd network [0-9a-f]{12}, .* has [0-9a-f]{12}"):
        build.run(BuildRelease(out=str(tmp_path / "out"), genre_head=str(out), networks=str(networks)))
    with pytest.raises(SettingsError, match="leave loudness_lufs out"):
        build.run(BuildRelease(out=str(tmp_path / "out"), genre_head=str(out), loudness_lufs=-14.0))
    with pytest.raises(SettingsError, match="name a folder of taggrams or one of --genre-head"):
        build.run(BuildRelease(out=str(tmp_path / "out"), genre_head=str(out), taggrams_dir=str(tmp_path)))
    (tmp_path / "damaged").mkdir()
    for path in out.iterdir():
        (tmp_path / "damaged" / path.name).write_bytes(path.read_bytes().replace(b"power", b"powar"))
    with pytest.raises(ReleaseError, match="is not the file"):
        build.run(BuildRelease(out=str(tmp_path / "out"), genre_head=str(tmp_path / "damaged")))


def test_a_release_whose_head_hears_artists_uses_those_that_it_knows(heard: Path, tmp_path: Path):
    """The vectors of artists are all that counts here: sound says the opposite."""
    table = artist_table(tmp_path / "artists")
    inputs = (Block(name="msd.taggram.mean", weight=1e-3), Block(name="artist_embedding", width=5))
    trained = run(TrainGenre(
        source=str(heard), out=str(tmp_path / "head"), artists=str(table), inputs=inputs, **QUICK
    ))  # fmt: skip
    assert trained.folder.head.plain is not None
    figures = json.loads((tmp_path / "head" / "metrics.json").read_text())
    assert figures["classes"]["loud"]["tracks"] == 8
    assert figures["plain"]["classes"]["loud"]["tracks"] == 10
    assert trained.folder.manifest.training["with_artist_embedding"] == 18  # the artist of the last two is in no log
    built = build.run(BuildRelease(out=str(tmp_path / "release"), genre_head=str(tmp_path / "head"))).release
    known = built.artist_table()
    assert known is not None
    assert len(known) == 9
    assert (
        built.release_id
        == build.run(BuildRelease(out=str(tmp_path / "again"), genre_head=str(tmp_path / "head"))).release.release_id
    )
    tagger = Tagger(built)
    write_audio(tmp_path / "new.wav", noisy=True, seed=99)
    alone = tagger.tag(tmp_path / "new.wav")
    assert alone.genres[0][0] == "loud---noise" or "loud" in dict(alone.genres)
    by_gamelan = dict(tagger.tag(tmp_path / "new.wav", artist_id="G1").genres)
    by_noise = dict(tagger.tag(tmp_path / "new.wav", artist_id="p1").genres)
    assert by_gamelan["Gamelan & Co"] > 0.8 > 0.2 > by_noise.get("Gamelan & Co", 0.0)
    assert tagger.tag(tmp_path / "new.wav", artist_id="nobody").genres == alone.genres


def test_a_release_whose_table_of_artists_is_missing_or_of_other_dimensions_is_refused(heard: Path, tmp_path: Path):
    table = artist_table(tmp_path / "artists")
    run(TrainGenre(source=str(heard), out=str(tmp_path / "head"), artists=str(table), **QUICK))
    head = load_head_folder(tmp_path / "head").head
    built = build.run(BuildRelease(out=str(tmp_path / "release"), genre_head=str(tmp_path / "head"))).release
    assert load_artist_table(built.folder).manifest.dim == 5

    class OtherTable(type(built)):
        table = None

        def artist_table(self):
            return self.table

    other = OtherTable(built.manifest, built.folder)
    with pytest.raises(ReleaseError, match="hears artists, and the release has no table"):
        other.genre_head()
    other.table = load_artist_table(artist_table(tmp_path / "wide", dim=6))
    with pytest.raises(ReleaseError, match=r"takes 5 columns of artist_embedding, the release gives 6"):
        other.genre_head()
    other.table = load_artist_table(table)
    assert other.genre_head().to_bytes() == head.to_bytes()


def test_a_head_that_is_trained_on_features_is_the_one_that_is_trained_on_their_audio(
    head, features: Path, tmp_path: Path
):
    of_audio = load_head_folder(head[0])
    of_features = run(TrainGenre(source=str(features), out=str(tmp_path / "head"), **QUICK)).folder
    about, as_about = (folder.manifest.training for folder in (of_audio, of_features))
    same = ("data_sha256", "tracks", "artists", "artists_known", "gamma", "ridge", "min_confidence")
    assert {name: about[name] for name in same} == {name: as_about[name] for name in same}
    assert of_audio.manifest.networks == of_features.manifest.networks
    taggrams = np.random.default_rng(0).uniform(0.0, 0.5, (50, 50))
    said, as_said = (folder.head.scores(taggrams).decisions for folder in (of_audio, of_features))
    np.testing.assert_allclose(said, as_said, atol=2e-3)  # float16


def test_an_audio_encoder_hears_in_features_what_it_hears_in_audio(genres: Path, features: Path, tmp_path: Path):
    encoders = {"embedding": load_audio_encoder(write_mean_mel(tmp_path / "encoder", frames=938, unit_norm=False))}
    store, release = open_store(features), listening(load_release(), ("msd",))
    files = labelled_tracks(store)[:1]
    audio = [LabelledFile(where=str(genres / files[0].where), labels=files[0].labels, artist_id=None)]
    stored, heard = heard_in(store, files, encoders=encoders), hear(audio, release, encoders=encoders)
    assert stored.content == heard.content
    assert stored.features[0].keys() >= heard.features[0].keys()
    # In dB. A clip of 3.5 s is repeated to fill the window, and the seams differ.
    np.testing.assert_allclose(stored.features[0]["embedding"], heard.features[0]["embedding"], atol=0.5)


def test_features_that_do_not_fit_are_refused_and_those_that_editors_corrected_are_labelled_anew(
    features: Path, encoders: dict[str, Path], tmp_path: Path
):
    settings = {"source": str(features), "out": str(tmp_path / "head"), **QUICK}
    with pytest.raises(
        SettingsError, match=r"the encoder filterbank does not hear the log-mels of .*; name a store of"
    ):
        run(TrainGenre(**settings, audio_encoder=str(encoders["own"])))
    other = Path(shutil.copytree(features, tmp_path / "other"))
    manifest = (other / "store.json").read_text()
    (other / "store.json").write_text(re.sub('"msd": ?"[0-9a-f]{12}"', '"msd":"0123456789ab"', manifest))
    with pytest.raises(ReleaseError, match="are others: network msd 0123456789ab there"):
        run(TrainGenre(**settings | {"source": str(other)}))
    files, unlabelled = read_source(features, corrections={"Gamelan & Co/0.wav": "dub"})
    assert [file.labels for file in files[:2]] == [("dub",), ("Gamelan & Co",)]
    assert (files[20].where, files[20].artist_id, unlabelled) == ("power noise/again.wav", None, 0)


def test_a_genre_that_is_too_small_is_refused_with_what_it_has_and_needs(catalogue: Path, heard: Path, tmp_path: Path):
    lines, store = catalogue.read_text().splitlines(), Path(shutil.copytree(heard, tmp_path / "heard"))
    (tmp_path / "small.csv").write_text("\n".join(lines[:-2]) + "\n")
    settings = TrainGenre(source=str(store_of(tmp_path / "small.csv", store)), out=str(tmp_path / "head"), **QUICK)
    with pytest.raises(SettingsError, match=r"needs 10 tracks of 3 artists .*: loud has 8 tracks of 4 artists"):
        run(settings)
    one_artist = [re.sub(r",G\d,", ",G0,", line) for line in lines]
    (tmp_path / "small.csv").write_text("\n".join(one_artist) + "\n")
    store_of(tmp_path / "small.csv", store)
    with pytest.raises(SettingsError, match=r"Gamelan & Co has 10 tracks of 1 artists; add tracks"):
        run(settings)
    assert not (tmp_path / "head").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("polka",)}, "no track has the genre 'polka'"),
        ({"inputs": (Block(name="artist_embedding", width=5),)}, "needs a table of artists"),
        ({"inputs": (Block(name="embedding", width=5),)}, "nothing gives the input embedding"),
        ({"kinds": (), "inputs": (Block(name="mtt.polka", width=5),)}, "gives the input mtt.polka"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_before_anything_is_heard(
    catalogue: Path, tmp_path: Path, changes: dict, said: str
):
    with pytest.raises(SettingsError, match=said):
        run(TrainGenre(source=str(catalogue), out=str(tmp_path / "head"), **QUICK | changes))


def test_a_source_of_which_nothing_can_be_heard_is_refused(tmp_path: Path):
    (tmp_path / "c.csv").write_text("path,genre\nmissing.wav,a\nnosuch://also.wav,b\n")
    with pytest.raises(SettingsError, match=r"none of 2 files can be heard, such as .*missing\.wav: it cannot be read"):
        run(TrainGenre(source=str(tmp_path / "c.csv"), out=str(tmp_path / "head"), **QUICK))


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {
        "own": write_filterbank(folder / "own", dim=12),
        "foreign": write_filterbank(folder / "foreign", dim=7, sample_rate=24_000, window_s=1.0, unit_norm=False),
        "other": write_filterbank(folder / "other", dim=12, seed=1),
    }


def test_a_head_hears_audio_encoders_as_workers_will(catalogue: Path, encoders: dict[str, Path], tmp_path: Path):
    """Tags hardly count here; so what is guessed is what the encoders give."""
    names = ["--audio-encoder", str(encoders["own"]), f"blocks.foreign={encoders['foreign']}"]
    words = ["folds=3", "inner_folds=2", "gammas=[0.1]", "ridges=[0.3]", 'inputs=[["msd.taggram.mean", 1, 0.001]]']
    artists = ["--artists", str(artist_table(tmp_path / "artists"))]
    done = CliRunner().invoke(cli, ["train-genre", str(catalogue), str(tmp_path / "head"), *names, *artists, *words])
    assert done.exit_code == 0, done.exception
    trained = load_head_folder(tmp_path / "head").head
    audio = ("msd.taggram.mean", "foreign.embedding", "embedding")
    assert set(trained.inputs) == {*audio, "artist_embedding"}
    assert len(trained.exponents) == 50 + 7 + 12 + 5
    assert set(trained.plain.inputs) == set(audio)  # all of which each upload has
    built = CliRunner().invoke(
        cli, ["build-release", "--out", str(tmp_path / "release"), "--genre-head", str(tmp_path / "head"), *names]
    )
    assert built.exit_code == 0, built.exception
    release = load_release(tmp_path / "release")
    assert release.configuration.embedding_dim == 12
    tagger = Tagger(release)
    for noisy, genre in ((False, "Gamelan & Co"), (True, "loud---noise")):
        write_audio(tmp_path / "new.wav", noisy=noisy, seed=99)
        heard = tagger.tag(tmp_path / "new.wav")
        assert heard.genre == genre
        assert len(heard.embedding) == 12
        artist = "p1" if noisy else "G1"
        assert tagger.tag(tmp_path / "new.wav", artist_id=artist).genre == genre
        assert tagger.tag(tmp_path / "new.wav", artist_id=artist).genres != heard.genres


def test_a_head_can_hear_an_audio_encoder_alone(catalogue: Path, encoders: dict[str, Path], tmp_path: Path):
    settings = TrainGenre(
        source=str(catalogue), out=str(tmp_path / "head"), audio_encoder=str(encoders["own"]),
        inputs=(Block(name="embedding", width=12),), **QUICK,
    )  # fmt: skip
    head = run(settings).folder.head
    assert (head.inputs, head.plain) == (("embedding",), None)
    release = build.run(BuildRelease(
        out=str(tmp_path / "release"), genre_head=str(tmp_path / "head"), audio_encoder=str(encoders["own"])
    )).release  # fmt: skip
    write_audio(tmp_path / "new.wav", noisy=False, seed=99)
    assert Tagger(release).tag(tmp_path / "new.wav").genre == "Gamelan & Co"


def test_a_release_whose_encoders_are_not_those_that_the_head_heard_is_refused(
    catalogue: Path, encoders: dict[str, Path], tmp_path: Path
):
    run(TrainGenre(
        source=str(catalogue), out=str(tmp_path / "head"), audio_encoder=str(encoders["own"]), **QUICK
    ))  # fmt: skip
    for changes, said in (
        ({}, "hears embedding; name the folder of the audio encoder"),
        ({"audio_encoder": str(encoders["other"])}, "heard another audio encoder as embedding than that in .*other"),
        (
            {"audio_encoder": str(encoders["own"]), "blocks": {"foreign": str(encoders["foreign"])}},
            r"hears the embeddings \[\], blocks gives \['foreign.embedding'\]",
        ),
    ):
        with pytest.raises(SettingsError, match=said):
            build.run(BuildRelease(out=str(tmp_path / "out"), genre_head=str(tmp_path / "head"), **changes))
    wide = (Block(name="embedding", width=13),)
    with pytest.raises(SettingsError, match="the input embedding has 12 columns, not 13"):
        run(TrainGenre(
            source=str(catalogue), out=str(tmp_path / "out"), audio_encoder=str(encoders["own"]), inputs=wide, **QUICK
        ))  # fmt: skip


def test_a_head_can_hear_the_other_network_alone(heard: Path, tmp_path: Path):
    inputs = (Block(name="mtt.taggram.mean"),)
    run(TrainGenre(source=str(heard), out=str(tmp_path / "head"), inputs=inputs, **QUICK))
    release = build.run(BuildRelease(out=str(tmp_path / "release"), genre_head=str(tmp_path / "head"))).release
    assert release.configuration.run == ("mtt",)
    write_audio(tmp_path / "new.wav", noisy=False, seed=99)
    assert Tagger(release).tag(tmp_path / "new.wav").genres[0][0] == "Gamelan & Co"


def test_both_networks_can_be_heard(heard: Path, tmp_path: Path):
    inputs = (Block(name="msd.max_pool"), Block(name="mtt.taggram.mean"))
    run(TrainGenre(source=str(heard), out=str(tmp_path / "head"), inputs=inputs, **QUICK))
    release = build.run(BuildRelease(out=str(tmp_path / "release"), genre_head=str(tmp_path / "head"))).release
    assert release.configuration.run == ("msd", "mtt")
    write_audio(tmp_path / "new.wav", noisy=False, seed=99)
    assert Tagger(release).tag(tmp_path / "new.wav").genres[0][0] == "Gamelan & Co"
