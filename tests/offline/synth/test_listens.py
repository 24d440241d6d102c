"""What was programmed in is found in the log."""

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from models.events import Listen
from models.history import KINDS
from offline.synth.catalogue import draw_catalogue
from offline.synth.listeners import draw_listeners
from offline.synth.listens import draw_listens
from offline.synth.settings import DAY_MS
from tests.offline.synth.platforms import CONFIG, TINY, log, make, met


def test_the_log_has_as_many_listens_as_asked_ordered_by_time_over_the_days(platform: Path):
    listens = pl.read_parquet(platform / "listens")
    assert len(listens) == CONFIG.listens
    assert listens["at"].is_sorted()
    assert listens["event_id"].n_unique() == CONFIG.listens
    assert listens["at"].min() >= CONFIG.start_ms
    assert listens["at"].max() < CONFIG.start_ms + (CONFIG.days + 1) * DAY_MS


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


def test_a_remove_names_a_listen_and_an_exclude_follows_one(platform: Path):
    listens = log(platform).with_columns(pl.col("at").shift(1).over("user_id").alias("before_at"))
    removes, excludes = (listens.filter(pl.col("kind") == kind) for kind in ("remove", "exclude"))
    assert len(removes) == len(excludes) == round(0.01 * round(0.08 * CONFIG.listens))
    assert (removes["at"] == removes["before_at"]).all()
    assert (excludes["at"] > excludes["before_at"]).all()


def test_what_is_done_in_a_private_session_is_marked(platform: Path):
    listens = log(platform).with_columns(
        (pl.col("at").diff().over("user_id").fill_null(0) > 3_600_000).cum_sum().over("user_id").alias("sitting")
    )
    assert 0.005 < listens["excluded"].mean() < 0.05
    mixed = listens.group_by("user_id", "sitting").agg(pl.col("excluded").n_unique())["excluded"]
    assert (mixed > 1).mean() < 0.05  # a session may begin within the hour after another


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
        catalogue, listeners = draw_catalogue(config, rng), draw_listeners(config, rng)
        listens = draw_listens(config, catalogue, listeners, rng)
        place: dict[tuple[int, int], int] = {}
        returns = []
        for number, pair in enumerate(zip(listens.user.tolist(), listens.track.tolist(), strict=True)):
            returns += [number - place[pair]] if pair in place else []
            place[pair] = number
        shares[repeat_share] = len(returns) / config.listens
        gaps.append(np.median(returns))
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


@pytest.mark.parametrize(
    "settings", [{"listens": 1}, {"users": 1}, {"days": 1}, {"users": 5_000, "listens": 30}, {"repeat_share": 1.0}]
)
def test_the_smallest_platforms_are_whole_too(settings, tmp_path: Path):
    config = replace(TINY, no_audio=True, **settings)
    make(config, tmp_path / "small")
    listens = log(tmp_path / "small")
    assert len(listens) == config.listens
    assert (listens["at"] > listens["released_at"]).all()
