"""Settings: the environment, refusals, and secrets that stay secret."""

import pytest

from models.errors import SettingsError
from stream.settings import SECTIONS, load_settings

PASSWORD = "c4nary-passw0rd"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("TASTEWAVE_"):
            monkeypatch.delenv(name)


def test_every_setting_says_what_it_is_for() -> None:
    fields = {
        variables[name]: field
        for kind in SECTIONS.values()
        for variables in [kind.variables()]
        for name, field in kind.model_fields.items()
    }
    assert len(fields) > 30
    for variable, field in fields.items():
        assert field.description, variable


def test_every_section_reads_its_own_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = [variable for kind in SECTIONS.values() for variable in kind.variables().values()]
    assert len(variables) == len(set(variables)) > 30
    for other in ("TASTEWAVE_FETCH_FILE_ROOTS", "TASTEWAVE_POOL_TASK_TIMEOUT_S", "FILE_ROOTS", "TASTEWAVE_URL"):
        monkeypatch.setenv(other, "7")
    assert load_settings() == load_settings(file_roots=(), task_timeout_s=60.0)


def test_a_variable_that_was_renamed_is_answered_with_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTEWAVE_WINDOW", "8")
    with pytest.raises(SettingsError, match="TASTEWAVE_WINDOW is called TASTEWAVE_TRACKS_IN_HAND now"):
        load_settings()
    monkeypatch.delenv("TASTEWAVE_WINDOW")
    monkeypatch.setenv("TASTEWAVE_TRACKS_IN_HAND", "8")
    assert load_settings().worker.tracks_in_hand == 8


def test_an_override_that_is_no_setting_is_an_error_of_the_caller() -> None:
    with pytest.raises(TypeError, match="TASTEWAVE_POOL_SISE"):
        load_settings(pool_sise=3)


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTEWAVE_KAFKA_BROKERS", "a:9092, b:9092,")
    monkeypatch.setenv("TASTEWAVE_FILE_ROOTS", "/srv/a,/srv/b")
    settings = load_settings()
    assert settings.kafka.brokers == ("a:9092", "b:9092")
    assert settings.fetch.file_roots == ("/srv/a", "/srv/b")


def test_overrides_win_over_the_environment_where_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTEWAVE_POOL_SIZE", "3")
    assert load_settings(pool_size=None).pool.size == 3
    assert load_settings(pool_size=2).pool.size == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POOL_SIZE", "0"),
        ("POOL_SIZE", "many"),
        ("KAFKA_BROKERS", " , "),
        ("KAFKA_BROKERS", "host"),
        ("KAFKA_BROKERS", "host:port"),
        ("KAFKA_BROKERS", "[::1"),
        ("KAFKA_SECURITY", "SASL_SSL"),
        ("KAFKA_SECURITY", "TLS"),
        ("TOPIC_PREFIX", "no/slash"),
        ("REDIS_URL", f"postgres://user:{PASSWORD}@host/0"),
        ("HEALTH_PORT", "70000"),
        ("FETCH_TIMEOUT_S", "-1"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_sentence_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"TASTEWAVE_{name}", value)
    with pytest.raises(SettingsError, match=f"TASTEWAVE_{name}: ") as error:
        load_settings()
    assert "\n" not in str(error.value)
    assert PASSWORD not in str(error.value)


def test_no_secret_shows_in_a_printed_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTEWAVE_REDIS_URL", f"rediss://worker:{PASSWORD}@redis:6380/0")
    monkeypatch.setenv("TASTEWAVE_KAFKA_PASSWORD", PASSWORD)
    settings = load_settings()
    assert PASSWORD not in f"{settings!r} {settings} {settings.kafka.model_dump_json()} {settings.redis.model_dump()}"
    assert settings.redis.url.get_secret_value().count(PASSWORD) == 1


def test_a_text_of_others_is_redacted_of_every_password_however_it_is_spelled() -> None:
    settings = load_settings(
        redis_url="redis://worker:p%40ss%2Fw0rd@redis:6379/0?ssl_password=of-the-key", kafka_password=PASSWORD
    )
    told = f"AUTH p@ss/w0rd, p%40ss%2Fw0rd, {PASSWORD}, of-the-key of worker"
    assert settings.redacted(told) == "AUTH ***, ***, ***, *** of worker"
    assert load_settings(redis_url="redis://worker:pw@redis").redacted("pw: powder") == "pw: powder"
    assert load_settings(redis_url="redis://[").redacted("redis://[") == "redis://["


@pytest.mark.parametrize(
    "url", [f"{PASSWORD}:1@host", f"worker:{PASSWORD}@host", f"{PASSWORD}://host", f"//:{PASSWORD}@"]
)
def test_nothing_of_a_redis_url_without_its_scheme_is_told(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("TASTEWAVE_REDIS_URL", url)
    with pytest.raises(SettingsError, match="none of redis://") as error:
        load_settings()
    assert "c4nary" not in str(error.value)


def test_kafka_clients_share_one_set_of_connection_arguments() -> None:
    plain = load_settings(kafka_brokers=("a:1",)).kafka.client_arguments()
    assert plain == {"bootstrap_servers": ["a:1"], "security_protocol": "PLAINTEXT"}
    secure = load_settings(
        kafka_security="SASL_SSL", kafka_username="u", kafka_password=PASSWORD
    ).kafka.client_arguments()
    assert secure["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (secure["sasl_plain_username"], secure["sasl_plain_password"]) == ("u", PASSWORD)
    assert secure["ssl_context"].check_hostname


def test_a_certificate_file_that_is_missing_is_one_sentence(tmp_path) -> None:
    settings = load_settings(kafka_security="SSL", kafka_ca_file=tmp_path / "missing.pem")
    with pytest.raises(SettingsError, match=r"No such file.*KAFKA_CA_FILE"):
        settings.kafka.client_arguments()


def test_topics_take_the_prefix() -> None:
    assert load_settings(topic_prefix="eu-").topics.named("tastewave.listens") == "eu-tastewave.listens"


@pytest.mark.parametrize(
    "value",
    [
        *(
            "http://store:9000",
            "store/music",
            "*.example.org",
            "user@store",
            "store:port",
            "store:99999",
            "[store]",
            ":80",
        ),
        *("a:b:c", "[::1", "::1]:80", "store, http://x", "store music", "store:9000/"),
    ],
)
def test_an_allowed_host_that_no_address_could_match_is_refused_at_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match=r"TASTEWAVE_ALLOWED_HOSTS.* host or host:port"):
        load_settings(allowed_hosts=value)


@pytest.mark.parametrize("value", ["music", "s3:music", "s3://", "S3://music", "s3://music/folder", "s3://u:p@music"])
def test_an_allowed_bucket_that_no_address_could_match_is_refused_at_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match=r"TASTEWAVE_ALLOWED_BUCKETS.* scheme://bucket"):
        load_settings(allowed_buckets=value)
