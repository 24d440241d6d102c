"""Every setting of the workers and commands, in sections, and the only place that reads the environment.

    settings = load_settings()                   # from the environment
    settings.kafka.brokers                       # TASTEWAVE_KAFKA_BROKERS
    settings.topics.named("tastewave.listens")   # with the prefix of TASTEWAVE_TOPIC_PREFIX

A part of the program gets the section that it needs and no other.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import json
import os
import re
import ssl
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.contract import KEY_PREFIX
from models.errors import SettingsError

PREFIX = "TASTEWAVE_"
RENAMED = {"TASTEWAVE_WINDOW": "TASTEWAVE_TRACKS_IN_HAND"}
"""Variables of earlier versions, and what they are called now."""
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
_LEAST_SECRET = 6  # letters; a shorter one may be part of any word


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Section(BaseSettings):
    """Settings that belong together. A variable is named PREFIX, the section's own prefix, and the field."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    @classmethod
    def variables(cls) -> dict[str, str]:
        """The environment variable of each field."""
        prefix = cls.model_config.get("env_prefix", PREFIX)
        return {
            name: str(field.validation_alias or f"{prefix}{name.upper()}") for name, field in cls.model_fields.items()
        }


class KafkaSettings(Section):
    """How to reach Kafka; one set for all clients."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}KAFKA_")

    brokers: CommaList = Field(
        ("127.0.0.1:9092",), description="brokers to connect to first: host:port, comma separated"
    )
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "SCRAM-SHA-512", description="how to log in with SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )
    username: str | None = Field(None, description="user to log in as, with SASL")
    password: SecretStr | None = Field(None, description="password of that user; never printed or logged")
    token_provider: str | None = Field(
        None,
        description="function that returns a token for OAUTHBEARER, as module:function",
        pattern=r"^[\w.]+:\w+$",
    )
    client_rack: str | None = Field(
        None, description="where the worker runs, such as its zone: it reads from replicas that are there too"
    )
    ca_file: Path | None = Field(None, description="file of the certificates to trust; the system's when absent")
    cert_file: Path | None = Field(None, description="file of the client certificate, for mutual TLS")
    key_file: Path | None = Field(None, description="file of the client certificate's key")
    instance_id: str | None = Field(
        None,
        description="name of this worker alone that outlives it, such as that of a StatefulSet's pod: a restart within "
        "10 s moves no partition",
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
    )

    @field_validator("brokers")
    @classmethod
    def _brokers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("is empty, use host:port")
        for broker in value:
            if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@]+):[0-9]{1,5}", broker):
                raise ValueError("is not a comma-separated list of host:port")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Nothing that a protocol needs is missing, and nothing is given that it would not use."""
        protocol = f"{self.security} with {self.sasl_mechanism}" if self._is_sasl else self.security
        with_password = self._is_sasl and not self._has_tokens
        if with_password and not (self.username and self.password):
            raise ValueError(f"{protocol} needs {PREFIX}KAFKA_USERNAME and {PREFIX}KAFKA_PASSWORD")
        if not with_password and (self.username or self.password):
            raise ValueError(
                f"{protocol} uses no {PREFIX}KAFKA_USERNAME and {PREFIX}KAFKA_PASSWORD; use SASL_SSL with another "
                "mechanism, or unset them"
            )
        if self._has_tokens != bool(self.token_provider):
            raise ValueError(f"{protocol} {'needs' if self._has_tokens else 'uses no'} {PREFIX}KAFKA_TOKEN_PROVIDER")
        files = {"CA_FILE": self.ca_file, "CERT_FILE": self.cert_file, "KEY_FILE": self.key_file}
        if not self._is_encrypted and (unused := [name for name, file in files.items() if file]):
            raise ValueError(
                f"{self.security} uses no {PREFIX}KAFKA_{unused[0]}; use SSL or SASL_SSL, or unset the variable"
            )
        return self

    @property
    def _is_sasl(self) -> bool:
        return self.security.startswith("SASL")

    @property
    def _has_tokens(self) -> bool:
        return self._is_sasl and self.sasl_mechanism == "OAUTHBEARER"

    @property
    def _is_encrypted(self) -> bool:
        return "SSL" in self.security.split("_")

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context of the clients; None without TLS. Raises SettingsError where a certificate cannot be read."""
        if not self._is_encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file:
                # A password, or OpenSSL would ask the terminal for that of an encrypted key.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
        except OSError as error:
            raise SettingsError(
                f"TLS to Kafka cannot be set up ({error.strerror or type(error).__name__}); "
                f"check {PREFIX}KAFKA_CA_FILE, _CERT_FILE and _KEY_FILE"
            ) from None
        return context

    def token_function(self) -> Callable[[], str] | None:
        """The function that gives tokens; None where none is used. Raises SettingsError where it cannot be imported."""
        if not self._has_tokens:
            return None
        module, _, name = str(self.token_provider).partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except Exception as error:  # whatever the module raises
            raise SettingsError(
                f"{PREFIX}KAFKA_TOKEN_PROVIDER: {self.token_provider} cannot be imported ({type(error).__name__}: "
                f"{error}); name a function as module:function, in a module on PYTHONPATH"
            ) from error

    def client_arguments(self) -> dict[str, Any]:
        """Connection arguments that kafka-python and aiokafka share: all but tokens (stream.broker.tokens).

        Raises SettingsError as ssl_context does.
        """
        arguments: dict[str, Any] = {"bootstrap_servers": list(self.brokers), "security_protocol": self.security}
        if context := self.ssl_context():
            arguments["ssl_context"] = context
        if self._is_sasl:
            arguments["sasl_mechanism"] = self.sasl_mechanism
        if self.username and self.password:
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self.password.get_secret_value()
        return arguments

    def redacted(self, text: str) -> str:
        """A text from elsewhere, such as an error of a broker, with *** in place of the password."""
        return _redacted(text, self._secrets())

    def _secrets(self) -> set[str]:
        return {self.password.get_secret_value()} if self.password else set()


class RedisSettings(Section):
    """How to reach Redis."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}REDIS_")

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="redis:// or, with TLS, rediss://; may hold user and password of an ACL",
    )
    cluster: bool = Field(False, description="true where the URL is that of a node of a Redis Cluster")
    key_prefix: str = Field(
        KEY_PREFIX, description="what the names of all keys begin with, before a colon", pattern=r"^[A-Za-z0-9._:-]+$"
    )

    @field_validator("url")
    @classmethod
    def _scheme(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("starts with none of redis://, rediss:// and unix://")  # but maybe with the password
        return value

    def redacted(self, text: str) -> str:
        """A text from elsewhere, such as an error of the server, with *** in place of each password of the URL."""
        return _redacted(text, self._secrets())

    def _secrets(self) -> set[str]:
        with contextlib.suppress(ValueError):
            url = urlsplit(self.url.get_secret_value())
            of_query = {value for name, value in parse_qsl(url.query) if "password" in name}
            return of_query | {url.password or "", unquote(url.password or "")}
        return set()


class FetchSettings(Section):
    """Where audio may come from, and how much of it."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}FETCH_")

    file_roots: CommaList = Field(
        (),
        validation_alias=f"{PREFIX}FILE_ROOTS",
        description="folders whose files may be read by file:// addresses; none when empty",
    )
    allowed_hosts: CommaList = Field(
        (),
        validation_alias=f"{PREFIX}ALLOWED_HOSTS",
        description="hosts that may be reached at private addresses too: host, or host:port for one port alone",
    )
    allowed_buckets: CommaList = Field(
        (),
        validation_alias=f"{PREFIX}ALLOWED_BUCKETS",
        description="buckets of object stores that may be read, as scheme://bucket",
    )
    max_bytes: Positive = Field(200_000_000, description="largest audio file that is fetched, in bytes")
    timeout_s: Seconds = Field(60.0, description="seconds for fetching one file, with all its tries and redirects")
    max_redirects: Annotated[int, Field(ge=0)] = Field(3, description="most redirects that are followed")
    attempts: Positive = Field(
        4, description="most tries where the other side fails for the moment; the wait between them grows"
    )

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _is_host(host):
                raise ValueError("is not a comma-separated list of host or host:port without scheme, path or wildcard")
        return value

    @field_validator("allowed_buckets")
    @classmethod
    def _buckets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for bucket in value:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+/?", bucket):
                raise ValueError("is not a comma-separated list of scheme://bucket, the scheme in small letters")
        return value


class PoolSettings(Section):
    """The processes that hear tracks."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}POOL_")

    size: Positive | None = Field(
        None, description="processes that hear tracks; as many as the CPUs that a worker may use when absent"
    )
    task_timeout_s: Seconds = Field(
        60.0,
        validation_alias=f"{PREFIX}TASK_TIMEOUT_S",
        description="seconds for hearing one track; then its process is ended",
    )
    task_memory_mb: Positive = Field(
        1024,
        validation_alias=f"{PREFIX}TASK_MEMORY_MB",
        description="MiB of memory that a pool process may add while it hears a track",
    )
    max_duration_s: Seconds = Field(
        3 * 3600.0, validation_alias=f"{PREFIX}MAX_DURATION_S", description="longest track that is heard, in seconds"
    )


class WorkerSettings(Section):
    """The process of a worker: its release, what it has in hand, its answers, health and logs."""

    release: str | None = Field(None, description="folder or fsspec URL of the release; the shipped one when absent")
    release_public_key: Path | None = Field(
        None,
        description="PEM file of a public key: a worker starts only with a release that was signed with it; no "
        "signature is looked for when absent",
    )
    least_coverage: float = Field(
        0.995,
        ge=0,
        le=1,
        description="share of the live release's tracks, and of its users, that a release must have as well before "
        "`tastewave release activate` takes it",
    )
    tracks_in_hand: Positive | None = Field(
        None, description="tracks that are fetched and heard at a time; four for each pool process when absent"
    )
    future_tolerance_s: Seconds = Field(
        300.0, description="seconds that an event may be dated ahead of the worker's clock"
    )
    drain_timeout_s: Seconds = Field(
        25.0, description="seconds that a worker has after SIGTERM to finish what it has in hand"
    )
    top_k: Positive = Field(5, description="how many genres, and how many tags, an answer keeps")
    store_taggram: bool = Field(False, description="true to keep each track's tags over time (its taggram) in Redis")
    health_host: str = Field("127.0.0.1", description="address that /live, /ready and /metrics listen on")
    health_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        6067, description="port of /live, /ready and /metrics; 0 takes a free one"
    )
    stall_s: Seconds = Field(
        180.0, description="seconds after which a partition with lag and no progress makes the worker not ready"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json, console (coloured text), or auto: console on a terminal, else json"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged: debug, info, warning or error"
    )


class UserSettings(Section):
    """What is kept of each user."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}USER_")

    history: Positive = Field(
        64, le=1000, description="newest listens that are kept of a user, at most 1000; not fewer than the tower reads"
    )
    feedback: Positive = Field(
        256, le=1000, description="newest likes, dislikes and excluded tracks that are kept of a user, at most 1000"
    )
    ttl_days: Positive = Field(400, description="days without an event after which Redis lets a user go")


class ServeSettings(Section):
    """The HTTP API."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}SERVE_")

    host: str = Field("127.0.0.1", description="address that the API listens on", min_length=1)
    port: Annotated[int, Field(ge=0, le=65535)] = Field(6068, description="port of the API; 0 takes a free one")
    token: SecretStr | None = Field(
        None,
        description="bearer token that requests for users, audiences, audio, dead letters and changes must bring, of "
        "at least 16 characters; needed for changes, and where the address is not loopback",
        min_length=16,
    )
    without_token: bool = Field(
        False, description="true to serve users at an address that is not loopback without a token: a gateway guards it"
    )
    allowed_origins: CommaList = Field(
        (), description="origins whose pages may call the API from a browser (CORS), as https://host; none when empty"
    )
    timeout_s: Seconds = Field(
        5.0, description="seconds that a request may take to arrive, Redis to answer, and a client to take an answer"
    )
    max_connections: Positive = Field(
        1000, description="connections at a time, those of event streams included; a further one is answered 503"
    )
    audience_days: Positive = Field(
        30, description="days after their newest event for which users are held in memory, to be found as an audience"
    )
    audio_roots: CommaList = Field(
        (),
        description="folders whose files may be played: the audio of tracks that were uploaded from there; none when "
        "empty",
    )
    uploads: Path | None = Field(
        None,
        description="folder that keeps the files that are uploaded over HTTP, one of the TASTEWAVE_FILE_ROOTS of the "
        "workers; nothing can be uploaded when absent",
    )
    redrive: bool = Field(
        False, description="true to let whoever brings the token redrive dead letters by the API and its page"
    )
    corrections: bool = Field(
        False, description="true to let whoever brings the token correct genres by the API and its page"
    )

    @field_validator("token")
    @classmethod
    def _header(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", value.get_secret_value()):
            raise ValueError("may hold letters, digits and . _ ~ + / - = alone")  # RFC 6750
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not re.fullmatch(r"https?://[^/\s?#@*]+", origin):
                raise ValueError("is not a comma-separated list of scheme://host or scheme://host:port")
        return value

    def redacted(self, text: str) -> str:
        """A text from elsewhere with *** in place of the token."""
        return _redacted(text, {self.token.get_secret_value()} if self.token else ())


class TraceSettings(Section):
    """Spans of OpenTelemetry, by the variables that all programs share which export some. Its SDK reads others itself.

    Unlike the other sections' values, a strange one ends no command: such variables are often set for whole machines.
    """

    sdk_disabled: str = Field("", validation_alias="OTEL_SDK_DISABLED", description="true to export nothing")
    exporter: str = Field(
        "",
        validation_alias="OTEL_TRACES_EXPORTER",
        description="otlp to export spans, none or another name not to; when empty, they are exported where an "
        "endpoint is given",
    )
    endpoint: str = Field(
        "",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="address of the collector, such as http://127.0.0.1:4318: OTLP over HTTP, as protobuf",
    )
    traces_endpoint: str = Field(
        "",
        validation_alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        description="the same for spans alone, as a whole URL: http://127.0.0.1:4318/v1/traces",
    )

    @property
    def exported(self) -> bool:
        """Whether spans are."""
        if self.sdk_disabled.strip().lower() == "true":
            return False
        if self.exporter:
            return "otlp" in _split(self.exporter)
        return bool(self.endpoint or self.traces_endpoint)


class TopicSettings(Section):
    """The topics: their names, and how `tastewave topics create` makes them."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}TOPIC_")

    prefix: str = Field(
        "", description="put before the names of all topics and consumer groups", pattern=r"^[A-Za-z0-9._-]*$"
    )
    partitions: Positive = Field(12, description="partitions of each topic")
    replication: Positive = Field(1, description="replicas of each partition; use 3 in production")
    min_insync: Positive = Field(1, description="min.insync.replicas of each topic; use 2 in production")
    retention_h: Positive = Field(168, description="hours that uploads and listens are kept")
    dead_letter_retention_h: Positive = Field(
        720, validation_alias=f"{PREFIX}DEAD_LETTER_RETENTION_H", description="hours that dead letters are kept"
    )
    max_bytes: Positive = Field(1_048_576, description="largest message, in bytes (max.message.bytes)")

    def named(self, name: str) -> str:
        """A topic of the contract, under the prefix."""
        return self.prefix + name

    def consumer_group(self, *, role: str, release: str) -> str:
        """Consumer group of the workers of a role, under the prefix.

        It carries the release, so that the workers of two releases each answer every event.
        """
        return self.named(f"tastewave.{role}.{release}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All sections."""

    kafka: KafkaSettings
    redis: RedisSettings
    fetch: FetchSettings
    pool: PoolSettings
    worker: WorkerSettings
    users: UserSettings
    serve: ServeSettings
    topics: TopicSettings
    traces: TraceSettings

    def redacted(self, text: str) -> str:
        """A text from elsewhere with *** in place of each password of these settings."""
        return self.serve.redacted(self.redis.redacted(self.kafka.redacted(text)))


SECTIONS: dict[str, type[Section]] = get_type_hints(Settings)
"""The sections by name, in the order in which the documentation shows them."""


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment.

    Args:
        overrides: values by the name of their variable in small letters, without the prefix (kafka_brokers,
            file_roots); they win over the environment where they are not None.

    Raises:
        SettingsError: a value does not fit, or no setting has the name of a variable.
    """
    known = [variable for kind in SECTIONS.values() for variable in kind.variables().values()]
    _check_names(os.environ, known)
    given = {f"{PREFIX}{name.upper()}": value for name, value in overrides.items() if value is not None}
    if unknown := given.keys() - set(known):
        raise TypeError(f"there is no setting {', '.join(sorted(unknown))}")
    return Settings(**{name: _load(kind, given) for name, kind in SECTIONS.items()})


def _check_names(environment: Mapping[str, str], known: Collection[str]) -> None:
    for name in sorted(name for name in environment if name.upper().startswith(PREFIX)):
        if name.upper() in known or _of_kubernetes(name, environment[name]):
            continue
        if name in RENAMED:
            raise SettingsError(f"{name} is called {RENAMED[name]} now; rename the variable")
        (nearest,) = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
        raise SettingsError(
            f"{name} is no setting, and the nearest is {nearest}; correct or unset the variable "
            "(deploy/docs/settings.md has all)"
        )


def _of_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes has set the variable: it tells each pod of the services that are called tastewave-..."""
    return bool(_SERVICE_LINK.search(name)) or (name.endswith("_PORT") and bool(_SERVICE_ADDRESS.match(value)))


def _load(kind: type[Section], given: dict[str, Any]) -> Any:
    variables = kind.variables()
    names = {variable: kind.model_fields[field].validation_alias or field for field, variable in variables.items()}
    try:
        return kind(**{str(names[variable]): value for variable, value in given.items() if variable in names})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = str(first["loc"][0]) if first["loc"] else "security"  # of a whole section, only Kafka's is checked
        raise SettingsError(
            f"{variables.get(where, where)}: {first['msg']}; see the settings in deploy/docs/settings.md"
        ) from None


def _is_host(text: str) -> bool:
    """Whether it is a host or host:port; an IPv6 address without a port may stand without brackets."""
    match = re.fullmatch(r"(?:\[(.+)\]|([\w.-]+))(?::([0-9]{1,5}))?", text)
    if match and int(match[3] or 0) > 65_535:
        return False
    if match and match[2]:
        return True
    try:
        IPv6Address(match[1] if match else text)
    except ValueError:
        return False
    return True


def _redacted(text: str, secrets: Iterable[str]) -> str:
    spelled = {spelling for secret in secrets if len(secret) >= _LEAST_SECRET for spelling in _spellings(secret)}
    for spelling in sorted(spelled, key=len, reverse=True):
        text = text.replace(spelling, "***")
    return text


@functools.lru_cache(maxsize=16)
def _spellings(secret: str) -> frozenset[str]:
    """A secret as a text may quote it: itself, and inside of a repr or of JSON, or of a repr that is quoted in turn."""
    spelled = {secret}
    for _ in range(2):
        spelled |= {quote(one) for one in spelled for quote in _QUOTES}
    return frozenset(spelled)


_QUOTES: tuple[Callable[[str], str], ...] = (
    lambda text: repr(text)[1:-1],
    lambda text: repr(f'"{text}')[2:-1],  # beside a double quote, where ' is escaped
    lambda text: repr(text.encode(errors="replace"))[2:-1],
    lambda text: repr(f'"{text}'.encode(errors="replace"))[3:-1],
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
)
