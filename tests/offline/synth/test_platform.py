"""The synthetic platform: what was programmed in is found in its log, its audio and its truth."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
import soundfile
from click.testing import CliRunner
from scipy.stats import spearmanr

from models.errors import SettingsError
from models.events import Listen
from models.history import KINDS
from offline.cli import cli
from offline.synth import platform as synth_platform
from offline.synth.music import STYLES, synthesise
from offline.synth.platform import CAVEAT, CHAIN, DAY_MS, SynthPlatform, run, style_centres
from offline.synth.sounds import SAMPLE_RATE, band

CONFIG = SynthPlatform(tracks=160, users=200, listens=40_000, days=60, audio_format=None, seed=3)
TINY = SynthPlatform(tracks=20, users=10, listens=500, days=30, seconds=3.0, audio_format="wav")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("platforms") / "one"
    run(CONFIG, folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("platforms") / "tiny"
    run(TINY, folder)
    return folder


def log(platform: Path) -> pl.DataFrame:
    """The listens, with what is known of their tracks, user by user and oldest first."""
    tracks = pl.read_parquet(platform / "tracks.parquet")
    return pl.read_parquet(platform / "listens").join(tracks, on="track_id").sort("user_id", "at")


def met(platform: Path) -> pl.DataFrame:
    """The plays and skips."""
    return log(platform).filter(pl.col("kind").is_in(["play", "skip"]))


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) >= 7
    return files


def test_equal_settings_give_equal_bytes_and_another_seed_another_log(platform: Path, tmp_path: Path):
    run(CONFIG, tmp_path / "again")
    run(replace(CONFIG, seed=4), tmp_path / "other")
    assert contents(tmp_path / "again") == contents(platform)
    assert not pl.read_parquet(tmp_path / "other" / "listens").equals(pl.read_parquet(platform / "listens"))


def test_a_platform_without_audio_has_the_same_listens(tiny: Path, tmp_path: Path):
    run(replace(TINY, audio_format=None), tmp_path / "silent")
    silent, heard = contents(tmp_path / "silent"), contents(tiny)
    assert len(heard) == len(silent) + TINY.tracks
    differ = {name for name in silent if silent[name] != heard[name]}
    assert differ == {"tracks.parquet", "truth/config.json"}  # the paths of the audio, and its format


def test_the_log_has_as_many_listens_as_asked_ordered_by_time_over_the_days(platform: Path):
    listens = pl.read_parquet(platform / "listens")
    assert len(listens) == CONFIG.listens
    assert listens["at"].is_sorted()
    assert listens["event_id"].n_unique() == CONFIG.listens
    assert listens["at"].min() >= CONFIG.start_ms
    assert listens["at"].max() < CONFIG.start_ms + (CONFIG.days + 1) * DAY_MS


def test_a_large_log_is_several_files_of_several_row_groups(
    platform: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(synth_platform, "LISTENS_PER_FILE", 15_000)
    monkeypatch.setattr(synth_platform, "ROW_GROUP", 4_000)
    run(CONFIG, tmp_path / "parts")
    parts = sorted((tmp_path / "parts" / "listens").iterdir())
    assert [path.name for path in parts] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert pl.read_parquet(parts).equals(pl.read_parquet(platform / "listens"))
    import pyarrow.parquet as pq

    assert pq.ParquetFile(parts[0]).num_row_groups == 4


def test_every_row_is_a_listen_of_the_contract_and_every_kind_is_there(platform: Path):
    rows = pl.read_parquet(platform / "listens").to_dicts()
    listens = [msgspec.convert(row, Listen) for row in rows]
    assert {listen.kind for listen in listens} == set(KINDS)
    assert all(0 < listen.played_ms <= listen.duration_ms for listen in listens if listen.kind in ("play", "skip"))


def test_tracks_are_heard_only_after_their_release_and_new_ones_keep_coming(platform: Path):
    listens = log(platform)
    assert (listens["at"] > listens["released_at"]).all()
    first = listens.group_by("track_id").agg(pl.col("at").min())["at"]
    assert (first > CONFIG.start_ms + CONFIG.days // 2 * DAY_MS).sum() >= 10


def test_users_listen_only_after_they_joined_and_new_ones_keep_coming(platform: Path):
    users = pl.read_parquet(platform / "truth" / "users.parquet")
    first = log(platform).group_by("user_id").agg(pl.col("at").min()).join(users, on="user_id")
    assert (first["at"] >= first["joined_at"]).all()
    assert (first["at"] > CONFIG.start_ms + CONFIG.days // 2 * DAY_MS).sum() >= 10


def test_a_user_hears_one_track_at_a_time(platform: Path):
    listens = met(platform).with_columns(before=pl.col("at").shift(1).over("user_id")).drop_nulls("before")
    assert len(listens) > 30_000
    assert (listens["at"] - listens["played_ms"] > listens["before"]).all()


def test_feedback_follows_the_play_or_skip_of_its_track(platform: Path):
    listens = log(platform).with_columns(pl.col("track_id", "kind").shift(1).over("user_id").name.prefix("before_"))
    feedback = listens.filter(~pl.col("kind").is_in(["play", "skip"]))
    assert len(feedback) == round(0.08 * CONFIG.listens)
    assert (feedback["track_id"] == feedback["before_track_id"]).all()
    taken_back = feedback.filter(pl.col("kind").is_in(["unlike", "undislike"]))
    assert ("un" + taken_back["before_kind"] == taken_back["kind"]).all()


def test_a_few_tracks_and_users_have_most_of_the_listens(platform: Path):
    for column in ("track_id", "user_id"):
        counts = met(platform)[column].value_counts()["count"].sort(descending=True)
        assert 0.25 < counts[: len(counts) // 10].sum() / counts.sum() < 0.7


def test_the_order_of_a_users_listens_tells_more_than_the_users_taste(platform: Path):
    listens = met(platform).select("user_id", "style")
    shuffled = listens.sample(fraction=1.0, shuffle=True, seed=0).sort("user_id", maintain_order=True)
    kept, chance = (
        frame.select((pl.col("style") == pl.col("style").shift(1).over("user_id")).mean()).item()
        for frame in (listens, shuffled)
    )
    assert kept > chance + 0.15


def test_users_come_back_to_tracks_and_sooner_to_recent_ones():
    shares, gaps = {}, []
    for repeat_share in (0.25, 0.0):
        config = replace(CONFIG, tracks=5_000, users=100, listens=10_000, repeat_share=repeat_share)
        rng = np.random.default_rng(0)
        catalogue, listeners = synth_platform.draw_catalogue(config, rng), synth_platform.draw_listeners(config, rng)
        listens = synth_platform.draw_listens(config, catalogue, listeners, rng)
        place: dict[tuple[int, int], int] = {}
        found = []
        for number, pair in enumerate(zip(listens.user.tolist(), listens.track.tolist(), strict=True)):
            found += [number - place[pair]] if pair in place else []
            place[pair] = number
        shares[repeat_share] = len(found) / config.listens
        gaps.append(np.median(found))
    assert shares[0.25] > shares[0.0] + 0.05
    assert gaps[0] < gaps[1]


def test_what_is_liked_is_near_the_taste_and_what_is_disliked_or_skipped_is_far(platform: Path):
    users = pl.read_parquet(platform / "truth" / "users.parquet")
    listens = (
        log(platform)
        .join(users, on="user_id")
        .join(pl.read_parquet(platform / "truth" / "tracks.parquet"), on="track_id")
    )
    over = (listens["at"].to_numpy() - CONFIG.start_ms) / (CONFIG.days * DAY_MS)
    moved = (listens["drift"].to_numpy() * over)[:, None]
    taste = (1 - moved) * listens["early_taste"].to_numpy() + moved * listens["late_taste"].to_numpy()
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    affinity = (taste * listens["latent"].to_numpy()).sum(axis=1)
    of = {kind: affinity[(listens["kind"] == kind).to_numpy()] for kind in KINDS}
    assert of["like"].mean() > of["play"].mean() + 0.05 > of["skip"].mean() + 0.15 > of["dislike"].mean() + 0.2
    assert np.quantile(of["dislike"], 0.75) < np.quantile(of["like"], 0.25)


def test_tastes_drift(platform: Path):
    users = pl.read_parquet(platform / "truth" / "users.parquet")
    assert 0.3 < (users["drift"] > 0.3).mean() < 0.7
    assert (users["drift"] < 0.1).any()
    assert np.linalg.norm(users["late_taste"].to_numpy(), axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_truth_holds_the_seed_and_says_that_figures_are_plumbing(platform: Path):
    config = msgspec.json.decode((platform / "truth" / "config.json").read_bytes())
    assert config["config"]["seed"] == 3
    assert config["caveat"] == CAVEAT
    assert "plumbing: they were programmed in" in (platform / "truth" / "README.md").read_text()


def test_the_styles_are_those_that_can_be_synthesised_and_neighbours_are_alike():
    assert sorted(CHAIN) == sorted(STYLES)
    cosines = style_centres() @ style_centres().T
    assert np.diag(cosines, 1).min() > 0.6
    assert np.diag(cosines, 3).max() == pytest.approx(0.0)


def test_every_track_has_audio_of_its_style_as_bright_as_the_truth_says(tiny: Path):
    tracks = pl.read_parquet(tiny / "tracks.parquet").join(
        pl.read_parquet(tiny / "truth" / "tracks.parquet"), on="track_id"
    )
    assert tracks["style"].n_unique() == 8
    assert tracks["artist_id"].n_unique() == 8
    highs = []
    for track in tracks.to_dicts():
        waveform, sample_rate = soundfile.read(tiny / track["audio"], dtype="float32")
        assert waveform.shape == (3 * SAMPLE_RATE, 2)
        assert sample_rate == SAMPLE_RATE
        plain = synthesise(track["style"], seed=track["audio_seed"], duration_s=3.0)
        lows = (band(np.ascontiguousarray(wave[:, 0]), high_hz=500.0) for wave in (waveform, plain))
        assert np.corrcoef(*lows)[0, 1] > 0.99
        powers = [np.abs(np.fft.rfft(wave[:, 0])) ** 2 for wave in (waveform, plain)]
        highs.append(np.log(np.divide(*(power[6 * 3_000 :].sum() / power.sum() for power in powers))))
    assert spearmanr(highs, tracks["brightness"]).statistic > 0.8


def test_a_platform_is_replaced_and_anything_else_is_left_alone(tmp_path: Path):
    config = replace(TINY, audio_format=None)
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "empty", "new/inner"):
        run(config, tmp_path / folder)
        assert (tmp_path / folder / "tracks.parquet").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SettingsError, match="mine holds files of something else; name a new folder"):
        run(config, tmp_path / "mine")
    with pytest.raises(SettingsError, match=r"letter\.txt holds files of something else"):
        run(config, tmp_path / "mine" / "letter.txt")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine", "new"]


@pytest.mark.parametrize(("limit", "options"), [(4_000, ["--no-audio"]), (100_000, ["--format", "wav"])])
def test_where_no_more_can_be_written_it_is_one_sentence_and_nothing_stays(limit, options, tmp_path: Path):
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "if __name__ == '__main__':\n    from offline.cli import main; main()"
    )
    script, out = tmp_path / "limited.py", tmp_path / "platforms" / "one"
    script.write_text(program)
    result = subprocess.run(
        [sys.executable, script, "synth", "platform", out, "--listens", "500", "--tracks", "8", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: the platform cannot be written to {out} (")
    assert result.stderr.count("\n") == 1
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tracks": 7}, "tracks must be at least 8, got 7"),
        ({"users": 0}, "users must be at least 1, got 0"),
        ({"listens": 0}, "listens must be at least 1, got 0"),
        ({"seconds": 2.9}, "seconds must be at least 3, got 2.9"),
        ({"seconds": float("nan")}, "seconds must be at least 3, got nan"),
        ({"seconds": 121.0}, "seconds must be at most 120, got 121.0; no track is shorter"),
        ({"artists": 201}, "artists must be 8 .* to 200 .*, got 201"),
        ({"audio_format": "midi"}, "no format 'midi' can be written; choose one of wav, flac, ogg, mp3"),
        ({"repeat_share": 1.5}, "repeat_share must be a share from 0 to 1, got 1.5"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        SynthPlatform(**settings)


@pytest.mark.parametrize(
    "settings", [{"listens": 1}, {"users": 1}, {"days": 1}, {"users": 5_000, "listens": 30}, {"repeat_share": 1.0}]
)
def test_the_smallest_platforms_are_whole_too(settings, tmp_path: Path):
    config = replace(TINY, audio_format=None, **settings)
    run(config, tmp_path / "small")
    listens = log(tmp_path / "small")
    assert len(listens) == config.listens
    assert (listens["at"] > listens["released_at"]).all()


def test_the_command_makes_a_platform_and_says_what_its_figures_are(tmp_path: Path):
    folder = str(tmp_path / "platform")
    options = ["--tracks", "20", "--users", "10", "--listens", "500", "--artists", "9", "--no-audio"]
    result = CliRunner().invoke(cli, ["synth", "platform", folder, *options])
    assert result.exit_code == 0, result.output
    assert f"{folder}: 500 listens of 10 users to 20 tracks. {CAVEAT}" in result.output
    assert pl.read_parquet(tmp_path / "platform" / "tracks.parquet")["artist_id"].n_unique() == 9
