"""A local Redis."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from deploy.local.process import Server

CONFIGURATION = Path(__file__).with_name("redis.conf")


class Redis(Server):
    """redis-server with tastewave's configuration (redis.conf)."""

    name: ClassVar[str] = "Redis"

    @property
    def url(self) -> str:
        """redis:// address of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return ["redis-server", str(CONFIGURATION), *place]

    def _answers(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        once = Retry(NoBackoff(), retries=0)
        try:
            with redis.Redis(port=self.port, socket_timeout=1.0, retry=once) as client:
                return client.ping() is True
        except redis.RedisError:
            return False
