import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from models.audio_encoder import ENCODER_MANIFEST, WaveformInput
from models.errors import ReleaseError, SettingsError
from models.release import CARD, Release, load_release
from models.user_tower import TOWER_MANIFEST
from offline.audio_encoder.seal import seal
from offline.cli import cli
from offline.config import load_config
from offline.genre.settings import Block, GenreTraining
from offline.musicnn.convert import NETWORKS
from offline.release.build import NOTICE, run
from offline.release.card import model_card
from offline.release.settings import BuildRelease
from tests.conftest import TowerOf
from tests.platform.encoders import write_filterbank

CONFIG = GenreTraining(
    classes=("folk", "metal"), patch_step=1, gammas=(0.25,), ridges=(0.3,), folds=2, inner_folds=2, repeats=1, kinds=()
)


def build_release(taggrams_dir: Path, *, out: Path, networks_dir: Path) -> Release:
    settings = BuildRelease(taggrams_dir=str(taggrams_dir), out=str(out), networks=str(networks_dir), training=CONFIG)
    return run(settings).release


@pytest.fixture
def taggrams_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "taggrams"
    folder.mkdir()
    write_taggrams(folder, CONFIG.classes)
    return folder


def write_taggrams(folder: Path, classes: tuple[str, ...], *, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    tracks = [(label, artist, track) for label in range(len(classes)) for artist in range(4) for track in range(4)]
    patches = rng.uniform(0.0, 0.3, (len(tracks), 3, 50))
    for index, (label, _, _) in enumerate(tracks):
        patches[index, :, label] += 0.6
    names = [f"{classes[label]}.{artist}{track}" for label, artist, track in tracks]
    np.savez(
        folder / "train.npz",
        X=patches.reshape(-1, 50),
        Y=np.repeat([label for label, _, _ in tracks], 3),
        IDS=np.repeat(names, 3),
    )
    rows = [f"{name},{classes[label]} {artist}" for name, (label, artist, _) in zip(names, tracks, strict=True)]
    (folder / "train_artists.csv").write_text("\n".join(["track,artist", *rows]))


@pytest.fixture
def networks_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "networks"
    folder.mkdir()
    for name in (*NETWORKS.values(), NOTICE):
        (folder / name).write_bytes(f"the bytes of {name}".encode())
    return folder


def test_a_release_is_built_and_reads_back(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    out = tmp_path / "releases" / "new"
    release = build_release(taggrams_dir, out=out, networks_dir=networks_dir)
    assert release.folder == out
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*NETWORKS.values(), NOTICE, "card.md", "genre.npz", "manifest.json"]
    )
    manifest = load_release(out).manifest
    assert manifest == release.manifest
    assert manifest.release_id == release.release_id
    assert manifest.configuration.genres == ("folk", "metal")
    assert manifest.configuration.run == ("msd",)
    assert manifest.files.keys() == {*NETWORKS.values(), NOTICE, "card.md", "genre.npz"}
    assert manifest.training["tracks"] == 32
    assert 0.5 < manifest.metrics["accuracy"] <= 1.0
    assert release.genre_head().classes == ("folk", "metal")
    assert [path.name for path in out.parent.iterdir()] == ["new"]


def test_a_rebuild_gives_the_same_id_and_other_data_another(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    first = build_release(taggrams_dir, out=tmp_path / "a", networks_dir=networks_dir)
    again = build_release(taggrams_dir, out=tmp_path / "b", networks_dir=networks_dir)
    assert again.release_id == first.release_id
    assert (again.folder / CARD).read_text() == (first.folder / CARD).read_text() == model_card(again)
    write_taggrams(taggrams_dir, CONFIG.classes, seed=1)
    other = build_release(taggrams_dir, out=tmp_path / "c", networks_dir=networks_dir)
    assert other.release_id != first.release_id
    (networks_dir / NETWORKS["msd"]).write_bytes(b"another network")
    assert build_release(taggrams_dir, out=tmp_path / "d", networks_dir=networks_dir).release_id not in {
        first.release_id,
        other.release_id,
    }


def test_the_loudness_of_the_training_audio_is_that_of_the_release(
    tmp_path: Path, taggrams_dir: Path, networks_dir: Path
):
    settings = BuildRelease(
        taggrams_dir=str(taggrams_dir), out=str(tmp_path / "out"), networks=str(networks_dir), training=CONFIG,
        loudness_lufs=-17.0,
    )  # fmt: skip
    assert run(settings).release.configuration.loudness_lufs == -17
    as_it_is = build_release(taggrams_dir, out=tmp_path / "as-it-is", networks_dir=networks_dir)
    assert as_it_is.configuration.loudness_lufs is msgspec.UNSET


def test_the_tower_is_a_part_of_the_release(tmp_path: Path, taggrams_dir: Path, networks_dir: Path, tower_of: TowerOf):
    tower = Path(shutil.copytree(tower_of(["a", "b"]), tmp_path / "tower"))
    out, options = tmp_path / "out", ["--networks", str(networks_dir), "--tower", str(tower)]
    words = [f"training.{name}={msgspec.json.encode(getattr(CONFIG, name)).decode()}" for name in (
        "classes", "patch_step", "gammas", "ridges", "folds", "inner_folds", "repeats", "kinds",
    )]  # fmt: skip
    done = CliRunner().invoke(cli, ["build-release", str(taggrams_dir), "--out", str(out), *options, *words])
    assert done.exit_code == 0, done.exception
    release = load_release(out)
    assert release.configuration.embedding_dim == 40
    assert release.user_tower().items.rows(["a", "b", "c"]).tolist() == [0, 1, -1]
    assert {path.name for path in tower.iterdir()} < release.manifest.files.keys()
    assert build_release(taggrams_dir, out=tmp_path / "without", networks_dir=networks_dir).release_id not in (
        release.release_id,
    )
    (tower / "tower.onnx").write_bytes(b"another network")
    with pytest.raises(ReleaseError, match=r"tower\.onnx is not the file"):
        run(BuildRelease(
            taggrams_dir=str(taggrams_dir), out=str(out), networks=str(networks_dir), tower=str(tower), training=CONFIG
        ))  # fmt: skip
    assert load_release(out).release_id == release.release_id


def test_a_release_with_the_tower_of_a_made_up_platform_says_so(
    tmp_path: Path, taggrams_dir: Path, networks_dir: Path, tower_of: TowerOf
):
    tower = Path(shutil.copytree(tower_of(["a", "b"]), tmp_path / "tower"))
    manifest = json.loads((tower / TOWER_MANIFEST).read_text())
    manifest["training"]["log"] = {"caveat": "All of it is made up."}
    (tower / TOWER_MANIFEST).write_text(json.dumps(manifest))
    release = run(BuildRelease(
        taggrams_dir=str(taggrams_dir), out=str(tmp_path / "out"), networks=str(networks_dir), tower=str(tower),
        training=CONFIG,
    )).release  # fmt: skip
    assert release.manifest.training["demonstration"] == "All of it is made up."
    card = (release.folder / CARD).read_text()
    assert "> **A demonstration.**" in card
    assert "`tower.json`: `training.log.caveat`" in card


def test_a_release_whose_head_hears_embeddings_reads_back_with_its_plain_head(
    tmp_path: Path, taggrams_dir: Path, networks_dir: Path
):
    with np.load(taggrams_dir / "train.npz") as arrays:
        ids = list(dict.fromkeys(arrays["IDS"].tolist()))
    known = [track for track in ids if not track.endswith("3")]  # the others are in nobody's log
    vectors = np.random.default_rng(0).normal(0.0, 1.0, (len(known), 5))
    np.savez(taggrams_dir / "embeddings.npz", IDS=np.array(known), EMBEDDING=vectors)
    inputs = (Block(name="msd.taggram.mean", weight=1.0), Block(name="embedding", width=5, weight=0.5))
    settings = BuildRelease(
        taggrams_dir=str(taggrams_dir), out=str(tmp_path / "out"), networks=str(networks_dir),
        training=msgspec.structs.replace(CONFIG, inputs=inputs),
    )  # fmt: skip
    release = run(settings).release
    head = load_release(tmp_path / "out").genre_head()
    assert head.plain is not None
    assert (len(head.vectors), len(head.plain.vectors)) == (32, 32)
    assert release.manifest.metrics["plain_accuracy"] > 0.5
    alone = build_release(taggrams_dir, out=tmp_path / "plain", networks_dir=networks_dir).genre_head()
    assert head.plain.to_bytes() == alone.to_bytes()


def test_a_release_is_replaced_in_place_with_its_own_networks(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    out = tmp_path / "release"
    first = build_release(taggrams_dir, out=out, networks_dir=networks_dir)
    shutil.rmtree(networks_dir)
    assert build_release(taggrams_dir, out=out, networks_dir=out).release_id == first.release_id


def test_when_the_build_fails_the_old_release_stays(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    out = tmp_path / "release"
    first = build_release(taggrams_dir, out=out, networks_dir=networks_dir)
    np.savez(taggrams_dir / "train.npz", X=np.zeros((1, 50)))
    with pytest.raises(SettingsError, match="cannot be read as taggrams"):
        build_release(taggrams_dir, out=out, networks_dir=networks_dir)
    assert load_release(out).release_id == first.release_id


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    out = tmp_path / "documents"
    out.mkdir()
    (out / "novel.txt").write_text("Chapter 1")
    with pytest.raises(SettingsError, match="files of something else; name a new folder"):
        build_release(taggrams_dir, out=out, networks_dir=networks_dir)
    assert (out / "novel.txt").read_text() == "Chapter 1"


@pytest.mark.parametrize("name", [*NETWORKS.values(), NOTICE])
def test_a_missing_network_or_notice_is_named(tmp_path: Path, taggrams_dir: Path, networks_dir: Path, name: str):
    (networks_dir / name).unlink()
    with pytest.raises(SettingsError, match=name):
        build_release(taggrams_dir, out=tmp_path / "out", networks_dir=networks_dir)


def test_score_genre_prints_the_accuracy_of_a_built_release(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    out = tmp_path / "release"
    build_release(taggrams_dir, out=out, networks_dir=networks_dir)
    result = CliRunner().invoke(cli, ["score-genre", str(taggrams_dir / "train.npz"), "--release", str(out)])
    assert result.exit_code == 0
    assert result.output.splitlines()[:2] == ["accuracy 1.000", "n 32"]
    result = CliRunner().invoke(cli, ["score-genre", str(taggrams_dir / "train.npz"), "--release", str(tmp_path)])
    assert isinstance(result.exception, ReleaseError)


def test_the_build_command_takes_a_folder_of_taggrams(tmp_path: Path, networks_dir: Path):
    result = CliRunner().invoke(
        cli, ["build-release", str(tmp_path), "--out", str(tmp_path / "out"), "--networks", str(networks_dir)]
    )
    assert isinstance(result.exception, SettingsError)
    assert "train.npz" in str(result.exception)


def test_the_build_command_prints_the_metrics_and_the_release(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    settings = BuildRelease(
        taggrams_dir=str(taggrams_dir), out=str(tmp_path / "out"), networks=str(networks_dir), training=CONFIG
    )
    outcome = run(settings)
    metrics = outcome.release.manifest.metrics
    assert outcome.lines() == [
        f"accuracy {metrics['accuracy']:.3f}",
        f"accuracy_standard_error {metrics['accuracy_standard_error']:.3f}",
        f"answered {metrics['answered']:.3f}",
        f"accuracy_answered {metrics['accuracy_answered']:.3f}",
        f"log_loss {metrics['log_loss']:.3f}",
        f"ece {metrics['ece']:.3f}",
        f"release {outcome.release.release_id} in {tmp_path / 'out'}",
    ]


def test_the_shipped_release_is_whole():
    release = load_release()
    head = release.genre_head()
    assert head.classes == GenreTraining().classes
    assert head.inputs == tuple(block.name for block in GenreTraining().inputs)
    trained_with = release.manifest.training["config"]
    assert trained_with.keys() == set(GenreTraining.__struct_fields__)
    assert msgspec.convert(trained_with, GenreTraining) == GenreTraining()
    assert release.manifest.training["tracks"] == len(head.vectors) == 443
    assert release.configuration.loudness_lufs == -20
    assert head.kinds is not None


def words(training: GenreTraining) -> list[str]:
    """The training as a person gives it on the command line."""
    changed = [name for name in training.__struct_fields__ if getattr(training, name) != getattr(GenreTraining(), name)]
    return [f"training.{name}={msgspec.json.encode(getattr(training, name)).decode()}" for name in changed]


def test_the_audio_encoder_is_a_part_of_the_release(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    encoder = write_filterbank(tmp_path / "encoder", dim=8)
    (encoder / ENCODER_MANIFEST).unlink()
    (encoder / "LICENSE.txt").write_text("of the weights")
    seal(encoder, name="filterbank", licence="MIT", takes=WaveformInput(sample_rate=16_000), window_s=30, training={})
    out, options = tmp_path / "out", ["--networks", str(networks_dir), "--audio-encoder", str(encoder)]
    done = CliRunner().invoke(cli, ["build-release", str(taggrams_dir), "--out", str(out), *options, *words(CONFIG)])
    assert done.exit_code == 0, done.exception
    release = load_release(out)
    assert release.configuration.embedding_dim == 8
    names = {"audio_encoder.json", "audio_encoder.onnx", "audio_encoder-LICENSE.txt"}
    assert names < release.manifest.files.keys()
    assert release.audio_encoder().manifest.licence == "MIT"
    again = CliRunner().invoke(cli, ["build-release", str(taggrams_dir), "--out", str(out), *options, *words(CONFIG)])
    assert again.exit_code == 0, again.exception
    assert load_release(out).release_id == release.release_id
    without = build_release(taggrams_dir, out=tmp_path / "without", networks_dir=networks_dir)
    assert without.release_id != release.release_id


def test_an_encoder_of_another_space_than_the_tower_is_refused(
    tmp_path: Path, taggrams_dir: Path, networks_dir: Path, tower_of: TowerOf
):
    tower, encoder = tower_of(["a", "b"]), write_filterbank(tmp_path / "encoder", dim=8)
    with pytest.raises(ReleaseError, match=r"gives 8 dimensions .* the taste space of the release has 40"):
        run(BuildRelease(
            taggrams_dir=str(taggrams_dir), out=str(tmp_path / "out"), networks=str(networks_dir), training=CONFIG,
            tower=str(tower), audio_encoder=str(encoder),
        ))  # fmt: skip
    assert not (tmp_path / "out").exists()


def with_block(width: int) -> GenreTraining:
    inputs = (Block(name="msd.taggram.mean"), Block(name="foreign.embedding", width=width))
    return msgspec.structs.replace(CONFIG, inputs=inputs)


def write_vectors(taggrams_dir: Path, width: int) -> None:
    with np.load(taggrams_dir / "train.npz") as arrays:
        ids = np.unique(arrays["IDS"])
    vectors = np.random.default_rng(0).normal(size=(len(ids), width))
    np.savez(taggrams_dir / "foreign.embeddings.npz", IDS=ids, EMBEDDING=vectors)


def test_a_foreign_network_is_a_block_of_the_head(tmp_path: Path, taggrams_dir: Path, networks_dir: Path):
    block = write_filterbank(tmp_path / "block", dim=6, sample_rate=24_000, unit_norm=False)
    write_vectors(taggrams_dir, 6)
    done = CliRunner().invoke(cli, [
        "build-release", str(taggrams_dir), "--out", str(tmp_path / "out"), "--networks", str(networks_dir),
        f"blocks.foreign={block}", *words(with_block(6)),
    ])  # fmt: skip
    assert done.exit_code == 0, done.exception
    release = load_release(tmp_path / "out")
    assert release.configuration.blocks == {"foreign": "block-foreign.json"}
    assert release.configuration.embedding_dim is None
    assert release.blocks()["foreign"].manifest.dim == 6
    head = release.genre_head()
    assert head.inputs == ("msd.taggram.mean", "foreign.embedding")
    assert len(head.exponents) == 56


@pytest.mark.parametrize(
    ("training", "blocks", "error", "message"),
    [
        (with_block(6), {}, SettingsError, r"hears the embeddings \['foreign.embedding'\], blocks gives \[\]"),
        (CONFIG, {"foreign": "block"}, SettingsError, r"embeddings \[\], blocks gives \['foreign.embedding'\]"),
        (with_block(5), {"foreign": "block"}, ReleaseError, r"takes 55 columns, .* have \[50, 6\]"),
    ],
)
def test_blocks_that_head_and_release_do_not_agree_on_are_refused(
    tmp_path: Path, taggrams_dir: Path, networks_dir: Path, training, blocks, error, message
):
    write_filterbank(tmp_path / "block", dim=6)
    write_vectors(taggrams_dir, 5)
    with pytest.raises(error, match=message):
        run(BuildRelease(
            taggrams_dir=str(taggrams_dir), out=str(tmp_path / "out"), networks=str(networks_dir), training=training,
            blocks={name: str(tmp_path / folder) for name, folder in blocks.items()},
        ))  # fmt: skip


@pytest.mark.parametrize("name", ["a/b", "", "Ü", "x" * 41])
def test_a_block_has_a_name_that_a_file_can_have(name: str):
    with pytest.raises(SettingsError, match="blocks"):
        load_config(BuildRelease, taggrams_dir="t", out="o", blocks={name: "b"})
