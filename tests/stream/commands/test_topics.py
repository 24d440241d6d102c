from dataclasses import replace

import pytest

from models import contract
from stream.commands.topics import Topic, differences, wanted_topics
from stream.settings import load_settings

DAY_MS = 24 * 3_600_000


def topics(**settings: object) -> dict[str, Topic]:
    return {topic.name: topic for topic in wanted_topics(load_settings(**settings).topics)}


def test_every_topic_of_the_contract_is_wanted_once_under_the_prefix() -> None:
    names = {name for name in vars(contract).values() if isinstance(name, str) and name.startswith("tastewave.")}
    assert len(names) == 8
    assert set(topics()) == names
    assert len(wanted_topics(load_settings().topics)) == 8
    assert set(topics(topic_prefix="eu.")) == {f"eu.{name}" for name in names}


def test_settings_become_partitions_replicas_and_limits_of_every_topic() -> None:
    made = topics(topic_partitions=24, topic_replication=3, topic_min_insync=2, topic_max_bytes=2_000_000)
    for topic in made.values():
        assert (topic.partitions, topic.replication) == (24, 3)
        assert topic.configs["min.insync.replicas"] == "2"
        assert topic.configs["max.message.bytes"] == "2000000"


def test_events_are_kept_for_a_time_and_answers_for_good() -> None:
    made = topics(topic_retention_h=48, dead_letter_retention_h=24 * 30)
    for name in (contract.TRACKS_UPLOADED, contract.LISTENS):
        assert made[name].configs["cleanup.policy"] == "delete"
        assert made[name].configs["retention.ms"] == str(2 * DAY_MS)
    assert made[contract.DEAD_LETTER].configs["cleanup.policy"] == "delete"
    assert made[contract.DEAD_LETTER].configs["retention.ms"] == str(30 * DAY_MS)
    for name in (contract.TRACKS_TAGGED, contract.USERS_EMBEDDED, contract.TRACKS_FEATURES, contract.FORGOTTEN):
        assert made[name].configs["cleanup.policy"] == "compact"
        assert "retention.ms" not in made[name].configs


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ()),
        ({"partitions": 6}, ("partitions is 6, wanted 12",)),
        ({"replication": 2}, ("replication is 2, wanted 1",)),
        ({"configs": {}}, ("min.insync.replicas is None, wanted 1", "cleanup.policy is None, wanted compact")),
    ],
)
def test_a_difference_says_what_is_and_what_is_wanted(changed: dict, told: tuple[str, ...]) -> None:
    wanted = topics()[contract.TRACKS_TAGGED]
    differing = differences(wanted, replace(wanted, **changed))
    assert set(told) <= set(differing)
    assert bool(differing) == bool(told)


def test_what_the_settings_do_not_name_is_no_difference() -> None:
    wanted = topics()[contract.LISTENS]
    actual = replace(wanted, configs=wanted.configs | {"compression.type": "zstd"})
    assert differences(wanted, actual) == ()
