"""Settings: the environment, refusals, and secrets that stay secret."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    for other in ("FILE_ROOTS", "REDIS_URL", "KAFKA_BROKERS", "POOL_SIZE"):
        monkeypatch.setenv(other, "7")
    assert load_settings() == load_settings(file_roots=(), pool_size=None)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("TASTEWAVE_POOL_SISE", "TASTEWAVE_POOL_SIZE"),
        ("TASTEWAVE_FETCH_FILE_ROOTS", "TASTEWAVE_FILE_ROOTS"),
        ("TASTEWAVE_POOL_TASK_TIMEOUT_S", "TASTEWAVE_TASK_TIMEOUT_S"),
        ("TASTEWAVE_KAFKA_BROKER", "TASTEWAVE_KAFKA_BROKERS"),
        ("TASTEWAVE_HELTH_PORT", "TASTEWAVE_HEALTH_PORT"),
        ("tastewave_pool_sise", "TASTEWAVE_POOL_SIZE"),
        ("TASTEWAVE_", ""),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_with_the_nearest_name(
    monkeypatch: pytest.MonkeyPatch, wrong: str, nearest: str
) -> None:
    monkeypatch.setenv(wrong, "7")
    with pytest.raises(SettingsError, match=f"^{wrong} is no setting, and the nearest is {nearest}"):
        load_settings()


def test_what_kubernetes_tells_of_services_called_tastewave_is_no_misspelt_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The variables that it sets in each pod of a namespace with the services `tastewave` and `tastewave-redis`."""
    for service in ("TASTEWAVE", "TASTEWAVE_REDIS"):
        told = {"SERVICE_HOST": "10.0.0.11", "SERVICE_PORT": "6067", "SERVICE_PORT_HTTP": "6067"}
        told |= {"PORT": "tcp://10.0.0.11:6067", "PORT_6067_TCP": "tcp://10.0.0.11:6067"}
        told |= {"PORT_6067_TCP_PROTO": "tcp", "PORT_6067_TCP_PORT": "6067", "PORT_6067_TCP_ADDR": "10.0.0.11"}
        for name, value in told.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    load_settings()


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
        ("KAFKA_TOKEN_PROVIDER", "module.function"),
        ("REDIS_KEY_PREFIX", "{tw}"),
        ("REDIS_KEY_PREFIX", ""),
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


@pytest.mark.parametrize(
    ("security", "given", "told"),
    [
        ("PLAINTEXT", {"username": "u", "password": PASSWORD}, "PLAINTEXT uses no TASTEWAVE_KAFKA_USERNAME"),
        ("PLAINTEXT", {"password": PASSWORD}, "PLAINTEXT uses no TASTEWAVE_KAFKA_USERNAME"),
        ("SSL", {"username": "u"}, "SSL uses no TASTEWAVE_KAFKA_USERNAME"),
        (
            "SASL_SSL",
            {"username": "u"},
            "SASL_SSL with SCRAM-SHA-512 needs TASTEWAVE_KAFKA_USERNAME and TASTEWAVE_KAFKA_PASSWORD",
        ),
        ("PLAINTEXT", {"ca_file": "ca.pem"}, "PLAINTEXT uses no TASTEWAVE_KAFKA_CA_FILE"),
        ("SASL_SSL", {"sasl_mechanism": "OAUTHBEARER"}, "OAUTHBEARER needs TASTEWAVE_KAFKA_TOKEN_PROVIDER"),
        (
            "SASL_SSL",
            {"sasl_mechanism": "OAUTHBEARER", "password": PASSWORD},
            "OAUTHBEARER uses no TASTEWAVE_KAFKA_USER",
        ),
        ("PLAINTEXT", {"token_provider": "a:b"}, "PLAINTEXT uses no TASTEWAVE_KAFKA_TOKEN_PROVIDER"),
        (
            "SASL_SSL",
            {"username": "u", "password": PASSWORD, "token_provider": "a:b"},
            "SCRAM-SHA-512 uses no TASTEWAVE_KAFKA_TOKEN_PROVIDER",
        ),
        (
            "SASL_PLAINTEXT",
            {"username": "u", "password": PASSWORD, "key_file": "key.pem"},
            "SASL_PLAINTEXT uses no TASTEWAVE_KAFKA_KEY_FILE",
        ),
    ],
)
def test_credentials_and_certificates_that_a_protocol_would_not_use_are_refused(
    security: str, given: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError, match=f"TASTEWAVE_KAFKA_SECURITY: .*{told}") as error:
        load_settings(kafka_security=security, **{f"kafka_{name}": value for name, value in given.items()})
    assert PASSWORD not in str(error.value)


def test_no_secret_shows_in_a_printed_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASTEWAVE_REDIS_URL", f"rediss://worker:{PASSWORD}@redis:6380/0")
    monkeypatch.setenv("TASTEWAVE_KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("TASTEWAVE_KAFKA_USERNAME", "worker")
    monkeypatch.setenv("TASTEWAVE_KAFKA_SECURITY", "SASL_SSL")
    settings = load_settings()
    assert PASSWORD not in f"{settings!r} {settings} {settings.kafka.model_dump_json()} {settings.redis.model_dump()}"
    assert settings.redis.url.get_secret_value().count(PASSWORD) == 1


def test_a_text_of_others_is_redacted_of_every_password_however_it_is_spelled() -> None:
    settings = load_settings(
        redis_url="redis://worker:p%40ss%2Fw0rd@redis:6379/0?ssl_password=of-the-key",
        kafka_security="SASL_SSL",
        kafka_username="worker",
        kafka_password=PASSWORD,
    )
    told = f"AUTH p@ss/w0rd, p%40ss%2Fw0rd, {PASSWORD}, of-the-key of worker"
    assert settings.redacted(told) == "AUTH ***, ***, ***, *** of worker"
    assert load_settings(redis_url="redis://worker:pw@redis").redacted("pw: powder") == "pw: powder"
    assert load_settings(redis_url="redis://[").redacted("redis://[") == "redis://["


QUOTED = {
    "repr": repr,
    "repr beside quotes": lambda text: repr(f'it\'s "{text}"'),
    "repr of bytes": lambda text: repr(text.encode()),
    "repr of bytes beside quotes": lambda text: repr(f'it\'s "{text}"'.encode()),
    "repr of an error": lambda text: repr(ValueError(f"AUTH {text} failed")),
    "repr of a command": lambda text: repr({"arguments": ("AUTH", "it's me", text)}),
    "json": json.dumps,
    "json in its letters": lambda text: json.dumps(text, ensure_ascii=False),
    "repr of a repr": lambda text: repr(ConnectionError(repr(text))),
    "json of a repr": lambda text: json.dumps({"error": repr(text.encode())}),
}


@pytest.mark.parametrize("quoted", QUOTED)
@given(middle=st.text("\\\"'\n\0\x7fü\u2028\U0001f3b5 %{}", max_size=8))
def test_a_password_is_redacted_inside_quotes_however_they_escape_it(quoted: str, middle: str) -> None:
    password = f"c4nary{middle}c4nary"
    settings = load_settings(kafka_security="SASL_SSL", kafka_username="worker", kafka_password=password)
    redacted = settings.redacted(QUOTED[quoted](password))
    assert "c4nary" not in redacted
    assert redacted.count("***") == 1


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


def test_a_token_provider_that_cannot_be_imported_is_one_sentence() -> None:
    for provider, told in (
        ("no_such_module:token", "ModuleNotFoundError"),
        ("json:no_such_function", "AttributeError"),
    ):
        settings = load_settings(
            kafka_security="SASL_SSL", kafka_sasl_mechanism="OAUTHBEARER", kafka_token_provider=provider
        )
        with pytest.raises(SettingsError, match=f"KAFKA_TOKEN_PROVIDER: {provider} cannot be imported .{told}"):
            settings.kafka.token_function()


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
