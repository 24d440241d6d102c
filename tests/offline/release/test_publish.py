import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from moto.server import ThreadedMotoServer

from models.errors import ReleaseError, SettingsError
from models.release import DEFAULT, MANIFEST, load_release
from models.signature import SIGNATURE
from offline.cli import cli
from offline.release.publish import run
from offline.release.settings import PublishRelease
from tests.conftest import TowerOf
from tests.platform import taste
from tests.platform.keys import write_keys


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A bucket of one test on it, as a URL."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    kind = fsspec.get_filesystem_class("s3")
    kind.clear_instance_cache()  # which would keep the endpoint of an earlier test
    name = "models-" + "".join(letter for letter in tmp_path.name.lower() if letter.isalnum())[-40:]
    fsspec.filesystem("s3").mkdir(name)
    yield f"s3://{name}"
    kind.clear_instance_cache()


def publish(folder: Path, url: str, **settings: str) -> list[str]:
    return run(PublishRelease(folder=str(folder), url=url, **settings)).lines()


def test_a_release_is_published_to_s3_and_read_from_there(bucket: str, tmp_path: Path, tower_of: TowerOf):
    folder = taste.write_release(tmp_path / "release", tower_of(["a", "b"]))
    (folder / "notes.txt").write_text("no part of the release")
    here = load_release(folder)
    url = f"{bucket}/releases/mine"
    done = CliRunner().invoke(cli, ["publish-release", str(folder), url])
    assert done.exit_code == 0, done.exception
    assert done.output.splitlines()[0].startswith(f"release {here.release_id} at {url}, ")
    assert {path.rpartition("/")[2] for path in fsspec.filesystem("s3").ls(url)} == {*here.manifest.files, MANIFEST}
    there = load_release(url)
    assert there.manifest == here.manifest
    assert there.user_tower().items.rows(["b"]).tolist() == [1]


def test_a_release_is_signed_where_a_key_is_given(bucket: str, tmp_path: Path):
    private, public = write_keys(tmp_path)
    folder, url = Path(shutil.copytree(DEFAULT, tmp_path / "release")), f"{bucket}/mine"
    (folder / "notes.txt").write_text("no part of the release")
    publish(folder, url)
    with pytest.raises(ReleaseError, match=rf"{url} has no valid signature"):
        load_release(url, public_key=public)
    done = CliRunner().invoke(cli, ["publish-release", str(folder), url, "--sign-key", str(private)])
    assert done.exit_code == 0, done.exception
    assert done.output.splitlines()[0].endswith(" bytes, verified, signed")
    assert load_release(url, public_key=public).release_id == load_release().release_id
    assert not (folder / SIGNATURE).exists()
    publish(folder, url)
    assert load_release(url, public_key=public).release_id == load_release().release_id


def test_a_key_that_cannot_sign_uploads_nothing(bucket: str, tmp_path: Path):
    _, public = write_keys(tmp_path)
    with pytest.raises(SettingsError, match=r"release\.pub cannot be used to sign"):
        publish(DEFAULT, f"{bucket}/mine", sign_key=str(public))
    assert not fsspec.filesystem("s3").exists(f"{bucket}/mine")


def test_a_release_is_published_to_a_folder_that_is_not_there_yet(tmp_path: Path):
    publish(DEFAULT, f"file://{tmp_path}/a/b")
    assert load_release(tmp_path / "a" / "b").release_id == load_release().release_id


def test_an_upload_that_was_stopped_is_no_release_and_goes_on(bucket: str, monkeypatch: pytest.MonkeyPatch):
    url, store, put = f"{bucket}/mine", fsspec.filesystem("s3"), []
    put_file = store.put_file

    def stops_after_two(source: str, path: str) -> None:
        if len(put) == 2:
            raise ConnectionResetError("the network is away")
        put.append(path)
        put_file(source, path)

    monkeypatch.setattr(store, "put_file", stops_after_two)
    with pytest.raises(SettingsError, match=r"mine cannot be written \(the network is away\)"):
        publish(DEFAULT, url)
    assert len(store.ls(url)) == len(put) == 2
    with pytest.raises(ReleaseError, match="cannot be read"):
        load_release(url)
    monkeypatch.setattr(store, "put_file", put_file)
    publish(DEFAULT, url)
    assert load_release(url).release_id == load_release().release_id
    publish(DEFAULT, url)


def test_another_release_is_not_replaced(bucket: str, tmp_path: Path, tower_of: TowerOf):
    publish(DEFAULT, f"{bucket}/mine")
    other = taste.write_release(tmp_path / "release", tower_of(["a", "b"]))
    with pytest.raises(SettingsError, match="mine holds another release; name a folder that is new"):
        publish(other, f"{bucket}/mine")
    assert load_release(f"{bucket}/mine").release_id == load_release().release_id


def test_a_damaged_release_is_not_published(bucket: str, tmp_path: Path):
    folder = Path(shutil.copytree(DEFAULT, tmp_path / "release"))
    (folder / "genre.npz").write_bytes(b"another head")
    with pytest.raises(ReleaseError, match=r"genre\.npz is not the file"):
        publish(folder, f"{bucket}/mine")
    assert not fsspec.filesystem("s3").exists(f"{bucket}/mine")


def test_a_bucket_that_is_not_there_is_not_made(bucket: str):
    with pytest.raises(SettingsError, match=r"cannot be written .*bucket does not exist"):
        publish(DEFAULT, f"{bucket}-typo/mine")
    assert not fsspec.filesystem("s3").exists(f"{bucket}-typo")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("models/mine", "models/mine is no URL"),
        ("nonsense://models/mine", "Protocol not known: nonsense"),
        ("sftp://me:secret@host/mine", "the URL holds a password"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused_in_a_sentence(url: str, message: str):
    with pytest.raises(SettingsError, match=message) as caught:
        publish(DEFAULT, url)
    assert "secret" not in str(caught.value)


def test_storage_that_is_away_or_gives_no_rights_is_told_in_a_sentence(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(SettingsError, match=r"cannot be written \(Unable to locate credentials\)"):
        publish(DEFAULT, f"{bucket}/mine")
    with pytest.raises(ReleaseError, match=r"cannot be read \(Unable to locate credentials\)"):
        load_release(f"{bucket}/mine")
