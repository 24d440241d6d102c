"""Every setting of the workers and commands, and the only place that reads the environment (TASTEWAVE_*)."""

from __future__ import annotations

import contextlib
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.errors import SettingsError

PREFIX = "TASTEWAVE_"
CommaList = Annotated[tuple[str, ...], NoDecode]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
_LEAST_SECRET = 6  # letters; a shorter one may be part of any word


class Settings(BaseSettings):
    """One set for all Kafka clients, one for Redis; durations in seconds, sizes in bytes unless named otherwise."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    kafka_brokers: CommaList = Field(("127.0.0.1:9092",), description="host:port, comma separated")
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="protocol to the brokers"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="used with SASL_*"
    )
    kafka_username: str | None = Field(None, description="SASL user")
    kafka_password: SecretStr | None = Field(None, description="SASL password, never logged")
    kafka_ca_file: Path | None = Field(None, description="certificates to trust; the system's when absent")
    kafka_cert_file: Path | None = Field(None, description="client certificate for mutual TLS")
    kafka_key_file: Path | None = Field(None, description="key of the client certificate")
    topic_prefix: str = Field("", description="put before every topic name", pattern=r"^[A-Za-z0-9._-]*$")

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="redis:// or rediss:// (TLS), with ACL user and password"
    )
    redis_cluster: bool = Field(False, description="the URL is a node of a Redis Cluster")

    release: str | None = Field(None, description="folder or fsspec URL of the release; the shipped one when absent")

    file_roots: CommaList = Field((), description="folders that file:// URIs may name; none when empty")
    allowed_hosts: CommaList = Field((), description="hosts that http(s):// may reach at private addresses too")
    allowed_buckets: CommaList = Field((), description="scheme://bucket that object-store URIs may name")
    fetch_max_bytes: Positive = Field(200_000_000, description="largest audio file")
    fetch_timeout_s: Seconds = Field(60.0, description="for one download, redirects included")
    fetch_max_redirects: Annotated[int, Field(ge=0)] = Field(3, description="redirects followed")
    fetch_attempts: Positive = Field(4, description="tries on transient trouble, with back-off and jitter")

    pool_size: Positive | None = Field(None, description="pool processes; as many as cores when absent")
    task_timeout_s: Seconds = Field(60.0, description="for hearing one track; then its process is ended")
    task_memory_mb: Positive = Field(1024, description="memory a pool process may add while it hears a track (MiB)")
    max_duration_s: Seconds = Field(3 * 3600.0, description="longest track")

    window: Positive | None = Field(
        None, description="tracks in hand at a time; four for each pool process when absent"
    )
    future_tolerance_s: Seconds = Field(300.0, description="how far ahead of the clock an upload may be dated")
    drain_timeout_s: Seconds = Field(25.0, description="SIGTERM: time for what is in hand")
    top_k: Positive = Field(5, description="genres and tags kept in an answer")
    store_taggram: bool = Field(False, description="keep each taggram in Redis")

    health_host: str = Field("127.0.0.1", description="address of /live, /ready and /metrics")
    health_port: Annotated[int, Field(ge=0, le=65535)] = Field(6067, description="their port; 0 takes a free one")
    stall_s: Seconds = Field(180.0, description="a partition with lag and no progress for this long is not ready")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: colour on a terminal, else JSON")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level logged")

    topic_partitions: Positive = Field(12, description="of every topic that `topics create` makes")
    topic_replication: Positive = Field(1, description="replicas of each partition; 3 in production")
    topic_min_insync: Positive = Field(1, description="min.insync.replicas; 2 in production")
    topic_retention_h: Positive = Field(168, description="hours that uploads and listens are kept")
    dead_letter_retention_h: Positive = Field(720, description="hours that dead letters are kept")
    topic_max_bytes: Positive = Field(1_048_576, description="largest message (max.message.bytes)")

    @field_validator("kafka_brokers", "file_roots", "allowed_hosts", "allowed_buckets", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("starts with none of redis://, rediss:// and unix://")  # but maybe with the password
        return value

    @field_validator("kafka_brokers")
    @classmethod
    def _brokers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("is empty, use host:port")
        for broker in value:
            if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@]+):[0-9]{1,5}", broker):
                raise ValueError("is not a comma-separated list of host:port")
        return value

    @model_validator(mode="after")
    def _sasl(self) -> Self:
        if self.kafka_security.startswith("SASL") and not (self.kafka_username and self.kafka_password):
            raise ValueError(f"needs {PREFIX}KAFKA_USERNAME and {PREFIX}KAFKA_PASSWORD with {self.kafka_security}")
        return self

    def redacted(self, text: str) -> str:
        """A text of somebody else's, such as a server's answer, with *** for each password of these settings."""
        passwords = {self.kafka_password.get_secret_value()} if self.kafka_password else set[str]()
        with contextlib.suppress(ValueError):
            url = urlsplit(self.redis_url.get_secret_value())
            passwords |= {value for name, value in parse_qsl(url.query) if "password" in name}
            passwords |= {url.password or "", unquote(url.password or "")}
        for password in sorted(passwords, key=len, reverse=True):
            if len(password) >= _LEAST_SECRET:
                text = text.replace(password, "***")
        return text

    def topic(self, name: str) -> str:
        """A topic of the contract under the prefix."""
        return self.topic_prefix + name

    def ssl_context(self) -> ssl.SSLContext | None:
        """For the Kafka clients; None without TLS."""
        if "SSL" not in self.kafka_security.split("_"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.kafka_ca_file)
            if self.kafka_cert_file:
                # A password, or OpenSSL would ask the terminal for that of an encrypted key.
                context.load_cert_chain(self.kafka_cert_file, self.kafka_key_file, password="")
        except OSError as error:
            raise SettingsError(
                f"TLS to Kafka cannot be set up ({error.strerror or type(error).__name__}); "
                f"check {PREFIX}KAFKA_CA_FILE, _CERT_FILE and _KEY_FILE"
            ) from None
        return context

    def kafka_client(self) -> dict[str, Any]:
        """Connection arguments that kafka-python and aiokafka share."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": list(self.kafka_brokers),
            "security_protocol": self.kafka_security,
        }
        if context := self.ssl_context():
            arguments["ssl_context"] = context
        if self.kafka_security.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_username,
                "sasl_plain_password": self.kafka_password.get_secret_value() if self.kafka_password else None,
            }
        return arguments


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment; overrides win where they are not None. Raises SettingsError."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "kafka_security"
        raise SettingsError(f"{PREFIX}{name.upper()}: {first['msg']}; see the settings table in the README") from None
