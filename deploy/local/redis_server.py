"""A local Redis, alone or as a replica, and a Redis Cluster."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, ClassVar

from deploy.local.process import Cluster, LaunchError, Server, free_port

CONFIGURATION = Path(__file__).with_name("redis.conf")
_CLUSTER_TIMEOUT_S = 120.0


class Redis(Server):
    """redis-server with tastewave's configuration (redis.conf).

    Args:
        folder: holds data and log; a temporary one, removed by close(), when absent.
        port: loopback port; a free one when absent.
        outlives: whether the server goes on after this process has ended.
        replica_of: the primary that this one copies, if any.
    """

    name: ClassVar[str] = "Redis"

    def __init__(
        self,
        *,
        folder: Path | None = None,
        port: int | None = None,
        outlives: bool = False,
        replica_of: Redis | None = None,
    ) -> None:
        super().__init__(folder=folder, port=port, outlives=outlives)
        self._replica_of = replica_of

    @property
    def url(self) -> str:
        """redis:// address of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        quick = ["--repl-diskless-sync-delay", "0"]  # a copy to a replica begins at once: no other replica will ask
        primary = ["--replicaof", "127.0.0.1", str(self._replica_of.port)] if self._replica_of else []
        return ["redis-server", str(CONFIGURATION), *place, *quick, *primary]

    def _answers(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        once = Retry(NoBackoff(), retries=0)
        try:
            with redis.Redis(port=self.port, socket_timeout=1.0, retry=once, decode_responses=True) as client:
                return self._is_up(client)
        except redis.RedisError:
            return False

    def _is_up(self, client: Any) -> bool:
        """Whether it answers; a replica, whether it has copied its primary and written that to disk (it refuses to stop
        before).
        """
        if self._replica_of is None:
            return client.ping()
        info = client.info()
        writing = info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"]
        return info.get("master_link_status") == "up" and not writing


class _Node(Redis):
    """A master of a Cluster."""

    def __init__(self) -> None:
        super().__init__()
        self._bus_port = free_port()
        self.formed = False

    def _command(self) -> list[str]:
        options = {"cluster-enabled": "yes", "cluster-port": str(self._bus_port), "cluster-node-timeout": "2000"}
        return [*super()._command(), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _is_up(self, client: Any) -> bool:
        """Whether it answers and, once the Cluster is formed, sees that the Cluster takes writes."""
        return super()._is_up(client) and (not self.formed or client.cluster("info")["cluster_state"] == "ok")


class RedisCluster(Cluster[_Node]):
    """Masters on loopback that share the slots of one Cluster.

    Args:
        size: number of masters, three at least.
    """

    def __init__(self, *, size: int = 3) -> None:
        super().__init__([_Node() for _ in range(size)])

    @property
    def url(self) -> str:
        """redis:// address of the first node; clients ask it for the others."""
        return self.nodes[0].url

    def wait(self) -> None:
        """Return when the Cluster is formed and each node sees that it takes writes. Raises LaunchError."""
        super().wait()
        _cluster("create", *(f"127.0.0.1:{node.port}" for node in self.nodes), "--cluster-yes")
        for node in self.nodes:
            node.formed = True
        super().wait()

    def join(self) -> Redis:
        """Start one more master, which has no slots yet. Raises LaunchError."""
        node = _Node()
        self.nodes = (*self.nodes, node)
        node.start()
        _cluster("add-node", f"127.0.0.1:{node.port}", f"127.0.0.1:{self.nodes[0].port}")
        node.formed = True
        node.wait()
        return node

    def move_slots(self, number: int, *, source: Redis, target: Redis) -> None:
        """Move a number of slots from one master to another. Raises LaunchError."""
        ids = {f"--cluster-{side}": _node_id(node) for side, node in (("from", source), ("to", target))}
        words = [word for option in ids.items() for word in option]
        _cluster("reshard", f"127.0.0.1:{self.nodes[0].port}", *words, "--cluster-slots", str(number), "--cluster-yes")


def _cluster(*words: str) -> None:
    command = ["redis-cli", "--cluster", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_CLUSTER_TIMEOUT_S)
    if done.returncode:
        raise LaunchError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")


def _node_id(node: Redis) -> str:
    import redis

    with redis.Redis(port=node.port, decode_responses=True) as client:
        return str(client.cluster("myid"))
