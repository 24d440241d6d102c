import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import msgspec
import numpy as np
import pytest

from models.contract import CONTRACT
from models.errors import ReleaseError
from models.genre import NEIGHBOURS, GenreHead
from models.mel import FRONT_END
from models.release import MANIFEST, Configuration, Manifest, load_release, release_id
from models.sealed_folder import SealedFile, describe_file
from models.user_tower import ITEM_VECTORS, TOWER_MANIFEST
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.encoders import write_filterbank

HEAD = GenreHead(
    classes=("folk", "metal"),
    inputs=("msd.taggram.mean",),
    exponents=np.ones(50),
    projection=np.eye(50)[:, :3],
    offset=np.zeros(3),
    vectors=np.zeros((NEIGHBOURS, 3)),
    labels=np.zeros(NEIGHBOURS, np.int64),
    weights=np.zeros((NEIGHBOURS, 2)),
    biases=np.zeros(2),
    gamma=1.0,
    temperature=1.0,
    min_confidence=0.5,
    max_distance=1.0,
)


def write_release(folder: Path, *, files: dict[str, bytes] | None = None, manifest: dict | None = None, **changes):
    """A release whose network is a file of bytes; manifest changes fields of the manifest, changes those of its
    configuration, after which the id is right again unless manifest names one."""
    folder.mkdir(exist_ok=True)
    contents = {"musicnn-msd.onnx": b"a network", "genre.npz": HEAD.to_bytes()} | (files or {})
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    configuration = Configuration(
        front_end=FRONT_END, sample_rate=16000, windows=3, window_s=30, networks={"msd": "musicnn-msd.onnx"},
        run=("msd",), genre_head="genre.npz", genres=("folk", "metal"),
    )  # fmt: skip
    configuration = msgspec.structs.replace(configuration, **changes)
    described = {name: describe_file(folder / name) for name in contents}
    fields = {
        "contract": CONTRACT,
        "release_id": release_id(configuration, described),
        "created": "2026-11-22T12:00:00+00:00",
        "code_version": "1.2.3",
        "configuration": configuration,
        "files": described,
        "training": {"tracks": 5},
        "metrics": {"accuracy": 0.5},
    }
    (folder / MANIFEST).write_bytes(msgspec.json.encode(Manifest(**fields | (manifest or {}))))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


def edit(folder: Path, old: str, new: str) -> None:
    manifest = (folder / MANIFEST).read_text()
    assert old in manifest
    (folder / MANIFEST).write_text(manifest.replace(old, new))


def test_a_release_reads_back_with_its_head(folder: Path):
    release = load_release(folder)
    assert release.folder == folder
    assert release.release_id == release.manifest.release_id
    assert len(release.release_id) == 12
    assert int(release.release_id, 16) >= 0
    assert release.configuration.run == ("msd",)
    assert release.genre_head().to_bytes() == HEAD.to_bytes()
    assert load_release(str(folder)).manifest == release.manifest


def test_the_id_is_of_content_and_configuration_and_not_of_when_and_how_it_was_made(tmp_path: Path):
    first = load_release(write_release(tmp_path / "a")).release_id
    made_later = {"created": "2027-01-01T00:00:00+00:00", "code_version": "2.0", "metrics": {}, "training": {}}
    assert load_release(write_release(tmp_path / "b", manifest=made_later)).release_id == first
    assert load_release(write_release(tmp_path / "c", windows=2)).release_id != first
    assert load_release(write_release(tmp_path / "d", files={"musicnn-msd.onnx": b"A network"})).release_id != first
    assert load_release(write_release(tmp_path / "e", files={"NOTICE": b""})).release_id != first


def test_the_id_does_not_depend_on_the_order_of_files(folder: Path):
    manifest = load_release(folder).manifest
    turned = dict(reversed(manifest.files.items()))
    assert list(turned) != list(manifest.files)
    assert release_id(manifest.configuration, turned) == manifest.release_id


def test_a_loudness_is_part_of_the_id_and_without_one_the_id_is_that_of_releases_from_before(tmp_path: Path):
    without = load_release(write_release(tmp_path / "a"))
    loud = load_release(write_release(tmp_path / "b", loudness_lufs=-14.0))
    assert loud.configuration.loudness_lufs == -14
    assert loud.release_id != without.release_id
    assert "loudness_lufs" not in (without.folder / MANIFEST).read_text()
    assert release_id(*from_before()) == "1b8e5dc6732d"


def from_before() -> tuple[Configuration, dict[str, SealedFile]]:
    """Of the release that shipped before releases had a loudness."""
    configuration = Configuration(
        front_end="musicnn-1",
        sample_rate=16000,
        windows=3,
        window_s=30,
        networks={"msd": "musicnn-msd.onnx", "mtt": "musicnn-mtt.onnx"},
        run=("msd",),
        genre_head="genre.npz",
        genres=("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"),
    )
    hashes = {
        "LICENSE-musicnn.txt": "029aa30815ee94c07d31d1d8977f0ce3d034fe5b309cdc7c3ac6cdc80301df32",
        "genre.npz": "0d46762aeb88f03f16079f0e0d9a2d16d11d91a37a7f3aaf66c34c94998019f4",
        "musicnn-msd.onnx": "021bccf147dfa7f846067bb7e7b83dd3646eac19342cf45fc1eee7844f0bf222",
        "musicnn-mtt.onnx": "2f5c5f2551c3d6edbf07765812e799fff422e1fc96a7f8957256359ac945af80",
    }
    return configuration, {name: SealedFile(sha256=value, bytes=1) for name, value in hashes.items()}


def test_features_at_another_loudness_are_of_another_front_end(tmp_path: Path):
    assert load_release(write_release(tmp_path / "a")).front_end == FRONT_END
    assert load_release(write_release(tmp_path / "b", loudness_lufs=-20.0)).front_end == f"{FRONT_END} at -20 LUFS"


@pytest.mark.parametrize("lufs", [3.0, -71.0])
def test_a_loudness_that_no_audio_has_is_refused(tmp_path: Path, lufs: float):
    with pytest.raises(ReleaseError, match="loudness_lufs"):
        load_release(write_release(tmp_path / "release", loudness_lufs=lufs))


@pytest.mark.parametrize("name", ["musicnn-msd.onnx", "genre.npz"])
def test_a_changed_file_is_refused(folder: Path, name: str):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ReleaseError, match=rf"{name} is not the file"):
        load_release(folder)


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0"])
def test_a_file_of_another_size_is_refused(folder: Path, change):
    path = folder / "genre.npz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ReleaseError, match=r"genre\.npz is not the file"):
        load_release(folder)


def test_a_missing_file_is_refused(folder: Path):
    (folder / "genre.npz").unlink()
    with pytest.raises(ReleaseError, match=r"genre\.npz is missing"):
        load_release(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path):
    (folder / "genre.npz").rename(tmp_path / "elsewhere.npz")
    (folder / "genre.npz").symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(ReleaseError, match=r"genre\.npz is missing"):
        load_release(folder)


def test_a_hash_that_was_changed_along_with_its_file_does_not_match_the_id(folder: Path):
    before = describe_file(folder / "genre.npz").sha256
    content = bytearray((folder / "genre.npz").read_bytes())
    content[-1] ^= 1
    (folder / "genre.npz").write_bytes(content)
    edit(folder, before, describe_file(folder / "genre.npz").sha256)
    with pytest.raises(ReleaseError, match="says that it is"):
        load_release(folder)


def test_a_changed_configuration_does_not_match_the_id(folder: Path):
    edit(folder, '"windows":3', '"windows":30')
    with pytest.raises(ReleaseError, match="says that it is"):
        load_release(folder)


@pytest.mark.parametrize(("old", "contract"), [('"contract":1,', '"contract":2,'), ('"contract":1,', "")])
def test_another_contract_is_refused_before_anything_else_is_read(folder: Path, old: str, contract: str):
    edit(folder, old, contract)
    edit(folder, '"files"', '"of a later contract"')
    with pytest.raises(ReleaseError, match="is of contract"):
        load_release(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b'{"contract":1}', b"\xff\xfe"])
def test_a_manifest_that_is_none_is_refused(folder: Path, content: bytes):
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ReleaseError, match="cannot be read"):
        load_release(folder)


def test_a_huge_manifest_is_not_read(folder: Path):
    (folder / MANIFEST).write_bytes(b" " * (2**20 + 1))
    with pytest.raises(ReleaseError, match="over 1048576 bytes"):
        load_release(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path):
    for where in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ReleaseError, match=r"no readable manifest\.json"):
            load_release(where)


@pytest.mark.parametrize("name", ["../outside.npz", "/etc/hostname", "sub/genre.npz", "..", MANIFEST])
def test_a_file_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str):
    (tmp_path / "outside.npz").write_bytes(HEAD.to_bytes())
    folder = write_release(tmp_path / "release")
    files = dict(load_release(folder).manifest.files)
    files[name] = files["genre.npz"]
    write_release(folder, manifest={"files": files}, genre_head=name)
    with pytest.raises(ReleaseError, match="not a plain name"):
        load_release(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": ()}, r"runs \(\)"),
        ({"run": ("mtt",)}, "runs"),
        ({"genre_head": "other.npz"}, "does not list"),
        ({"networks": {"msd": "other.onnx"}}, "does not list"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict, said: str):
    with pytest.raises(ReleaseError, match=said):
        load_release(write_release(tmp_path / "release", **changes))


def test_a_head_of_other_genres_than_the_manifest_is_refused(tmp_path: Path):
    release = load_release(write_release(tmp_path / "release", genres=("metal", "folk")))
    with pytest.raises(ReleaseError, match="the genre head knows"):
        release.genre_head()


def test_a_network_that_is_not_there_or_none_is_refused(folder: Path):
    release = load_release(folder)
    with pytest.raises(ReleaseError, match="has the networks msd, not mtt"):
        release.network("mtt")
    with pytest.raises(ReleaseError, match="musicnn network cannot be loaded"):
        release.network("msd")


def in_memory(folder: Path, name: str) -> str:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), f"/{name}", recursive=True)
    return f"memory://{name}"


def test_a_release_at_a_url_is_copied_verified_and_removed_again(folder: Path):
    release = load_release(in_memory(folder, "good"))
    assert release.manifest == load_release(folder).manifest
    assert release.genre_head().to_bytes() == HEAD.to_bytes()
    copy = release.folder
    assert copy != folder
    assert copy.is_dir()
    assert copy.stat().st_mode & 0o077 == 0
    del release
    assert not copy.exists()


def test_a_damaged_release_at_a_url_is_refused(folder: Path):
    url = in_memory(folder, "damaged")
    with fsspec.open(f"{url}/genre.npz", "ab") as file:
        file.write(b"more")
    with pytest.raises(ReleaseError, match=r"genre\.npz is not the file"):
        load_release(url)
    with pytest.raises(ReleaseError, match="cannot be read"):
        load_release("memory://nothing/here")
    with pytest.raises(ReleaseError, match="cannot be read"):
        load_release("nosuchscheme://bucket/folder")


def test_importing_the_reader_is_light():
    code = "import sys, models.release; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stdout.split())
    assert "models.release" in modules
    assert modules.isdisjoint({"onnxruntime", "scipy", "fsspec", "soundfile", "sklearn"})


@pytest.fixture(scope="module")
def tower(tower_of: TowerOf) -> Path:
    return tower_of(["a", "b"])


def test_a_release_carries_its_tower_and_its_id_covers_it(tmp_path: Path, tower: Path):
    release = load_release(taste.write_release(tmp_path / "release", tower))
    assert len(release.user_tower().items) == 2
    assert release.release_id != load_release().release_id
    assert TOWER_MANIFEST in release.manifest.files
    vectors = bytearray((release.folder / ITEM_VECTORS).read_bytes())
    vectors[-1] ^= 1
    (release.folder / ITEM_VECTORS).write_bytes(vectors)
    with pytest.raises(ReleaseError, match=rf"{ITEM_VECTORS} is not the file"):
        load_release(release.folder)


def test_a_release_without_a_tower_or_with_one_of_another_space_says_so(tmp_path: Path, tower: Path):
    with pytest.raises(ReleaseError, match="has no user tower"):
        load_release(taste.write_release(tmp_path / "plain", None)).user_tower()
    files = {path.name: path.read_bytes() for path in tower.iterdir()}
    other = write_release(tmp_path / "other", files=files, user_tower=TOWER_MANIFEST, embedding_dim=8)
    with pytest.raises(ReleaseError, match="has 40 dimensions, the manifest says 8"):
        load_release(other).user_tower()
    with pytest.raises(ReleaseError, match=r"uses tower\.json and does not list it"):
        load_release(write_release(tmp_path / "without", user_tower=TOWER_MANIFEST))


def test_audio_encoders_are_part_of_the_id_and_without_them_it_is_that_of_releases_from_before(tmp_path: Path):
    assert load_release(taste.write_release(tmp_path / "plain", None)).release_id == "bf0c0629ddc7"
    assert release_id(*from_before()) == "1b8e5dc6732d"
    encoders = [write_filterbank(tmp_path / name, dim=4, seed=seed) for seed, name in enumerate("ab")]
    ids = {load_release().release_id}
    for number, parts in enumerate(
        ({"audio_encoder": encoders[0]}, {"audio_encoder": encoders[1]}, {"blocks": {"b": encoders[0]}})
    ):
        ids.add(load_release(taste.write_release(tmp_path / str(number), None, **parts)).release_id)
    assert len(ids) == 4


@pytest.mark.parametrize(
    "changes", [{"audio_encoder": "audio_encoder.json"}, {"blocks": {"mine": "audio_encoder.json"}}]
)
def test_a_configuration_with_an_encoder_that_is_not_there_is_refused(tmp_path: Path, changes: dict):
    with pytest.raises(ReleaseError, match=r"uses audio_encoder\.json and does not list it"):
        load_release(write_release(tmp_path / "release", **changes))


def test_a_head_that_hears_a_network_that_does_not_run_is_refused(tmp_path: Path):
    deaf = replace(HEAD, inputs=("mtt.taggram.mean",))
    release = load_release(write_release(tmp_path / "release", files={"genre.npz": deaf.to_bytes()}))
    by_plain = replace(HEAD, plain=deaf)
    other = load_release(write_release(tmp_path / "other", files={"genre.npz": by_plain.to_bytes()}))
    for one in (release, other):
        with pytest.raises(ReleaseError, match=r"hears mtt\.taggram\.mean, the networks that run are msd"):
            one.genre_head()


def test_a_release_whose_table_of_artists_is_not_listed_is_refused(tmp_path: Path):
    with pytest.raises(ReleaseError, match=r"uses artists\.json and does not list it"):
        load_release(write_release(tmp_path / "release", artist_table="artists.json"))
    assert load_release(write_release(tmp_path / "without")).artist_table() is None
