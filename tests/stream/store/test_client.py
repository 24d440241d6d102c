import pytest
import redis
import redis.asyncio

from models.errors import SettingsError
from stream.settings import RedisSettings, load_settings
from stream.store.client import RedisUnusable, async_client, sync_client

NOBODY = "127.0.0.1:1"  # tcpmux: nothing listens there


def settings(url: str, **others: object) -> RedisSettings:
    return load_settings(redis_url=url, **others).redis


def arguments(url: str) -> dict:
    return async_client(settings(url)).connection_pool.connection_kwargs


def test_a_url_with_user_password_and_number_is_read() -> None:
    read = arguments("redis://worker:p%40ss%2Fword@redis.internal:7000/3")
    assert (read["host"], read["port"], read["db"]) == ("redis.internal", 7000, 3)
    assert (read["username"], read["password"]) == ("worker", "p@ss/word")


def test_the_path_of_a_socket_may_hold_an_at() -> None:
    pool = async_client(settings("unix://worker:secret@/run/redis@0.sock")).connection_pool
    assert pool.connection_kwargs["path"] == "/run/redis@0.sock"


def test_rediss_is_tls_with_certificates_checked() -> None:
    pool = async_client(settings("rediss://redis.internal")).connection_pool
    assert issubclass(pool.connection_class, redis.asyncio.SSLConnection)
    assert pool.make_connection().ssl_context.get().verify_mode.name == "CERT_REQUIRED"


def test_a_client_gives_up_soon_never_retries_and_returns_bytes() -> None:
    read = arguments("redis://redis.internal")
    assert 0 < read["socket_connect_timeout"] <= 5
    assert 0 < read["socket_timeout"] <= 10
    assert read["retry"].get_retries() == 0
    assert not read.get("decode_responses")


def test_a_cluster_is_a_setting() -> None:
    client = async_client(settings("rediss://worker:secret@redis.internal:7000", redis_cluster=True))
    assert isinstance(client, redis.asyncio.RedisCluster)
    assert client.nodes_manager.startup_nodes["redis.internal:7000"].host == "redis.internal"


@pytest.mark.parametrize(
    "url",
    [
        *("redis://worker:sec/ret@host:6379/0", "redis://worker:sec?ret@host", "redis://host:secret/0"),
        *(
            "redis://host:99999999/0",
            "redis://host?socket_timeout=secret",
            "redis://worker:1/secret@host",
            "redis://worker:1?secret@host",
            "redis://worker:1#secret@host",
            "redis://worker:secret：@host",
            "rediss://u:sec#ret@host",
        ),
    ],
)
@pytest.mark.parametrize("cluster", [False, True])
def test_a_url_that_cannot_be_read_is_refused_without_a_word_of_its_password(url: str, cluster: bool) -> None:
    with pytest.raises(SettingsError, match="TASTEWAVE_REDIS_URL") as caught:
        async_client(settings(url, redis_cluster=cluster))
    assert "sec" not in str(caught.value)
    assert caught.value.__suppress_context__
    with pytest.raises(SettingsError, match="TASTEWAVE_REDIS_URL"), sync_client(settings(url, redis_cluster=cluster)):
        pass


@pytest.mark.parametrize("cluster", [False, True])
def test_a_redis_that_is_away_is_one_sentence_without_a_password(cluster: bool) -> None:
    away = settings(f"redis://worker:secret@{NOBODY}/0", redis_cluster=cluster)
    with pytest.raises(RedisUnusable, match=NOBODY) as caught, sync_client(away) as client:
        client.get("x")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_an_asynchronous_client_leaves_waiting_to_its_caller() -> None:
    client = async_client(settings(f"redis://{NOBODY}/0"))
    with pytest.raises(redis.exceptions.ConnectionError):
        await client.ping()
    await client.aclose()
