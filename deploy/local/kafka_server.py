"""A local Apache Kafka: a broker, a cluster of brokers, and the files that all brokers start from."""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import ClassVar

from deploy.local.process import BUILD, INSTALL, Cluster, LaunchError, Server, free_port, locked

POM = Path(__file__).with_name("pom.xml")
PROPERTIES = Path(__file__).with_name("kafka.properties")
LOGGING = Path(__file__).with_name("log4j2.properties")
CLUSTER_ID = "tastewave-local-broker"
# A fast start is worth more here than throughput: no optimising compiler, one collector thread, a small heap.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms64m", "-Xmx256m", f"-Dlog4j2.configurationFile={LOGGING}")


class Kafka(Server):
    """A broker that is a cluster by itself."""

    name: ClassVar[str] = "Kafka"
    node_id = 1

    def __init__(self, *, folder: Path | None = None, port: int | None = None, outlives: bool = False) -> None:
        super().__init__(folder=folder, port=port, outlives=outlives)
        self._controller_ports = (free_port(),)

    @property
    def brokers(self) -> str:
        """host:port, as clients want it."""
        return f"127.0.0.1:{self.port}"

    def _command(self) -> list[str]:
        home = prepare()
        return self._java(home, f"-XX:SharedArchiveFile={home / 'classes.jsa'}")

    def _java(self, home: Path, archive_option: str) -> list[str]:
        data = self.folder / "data"
        if not data.exists():
            draft = self.folder / "data.draft"
            shutil.copytree(home / "formatted", draft, dirs_exist_ok=True)
            _name_node(draft / "meta.properties", self.node_id)
            draft.rename(data)
        properties = write_properties(
            self.folder, port=self.port, node_id=self.node_id, controller_ports=self._controller_ports
        )
        return ["java", *JVM, archive_option, "-cp", classpath(home), "kafka.Kafka", str(properties)]

    def _answers(self) -> bool:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
            with closing(KafkaAdminClient(bootstrap_servers=self.brokers)) as client:
                # The group coordinator of a broker starts last. Pyright has stubs of an older kafka-python.
                client.describe_groups(["any"])  # pyright: ignore[reportAttributeAccessIssue]
                return True
        except (OSError, KafkaError):
            return False


class _Node(Kafka):
    """A broker of a cluster. close() kills it: a broker whose quorum is gone cannot stop in order."""

    def __init__(self, *, node_id: int, controller_ports: Sequence[int]) -> None:
        super().__init__()
        self.node_id = node_id
        self._controller_ports = tuple(controller_ports)

    def close(self) -> None:
        with suppress(LaunchError):  # it does not run
            self.kill()
        super().close()


class KafkaCluster(Cluster[Kafka]):
    """Brokers on loopback that form one cluster, each a controller too.

    Kafka's own topics have up to three replicas, and take writes while one of these is away. Each broker needs
    about 325 MB.

    Args:
        size: number of brokers; with three, one may be away.
    """

    def __init__(self, *, size: int = 3) -> None:
        controller_ports = [free_port() for _ in range(size)]
        super().__init__([_Node(node_id=number + 1, controller_ports=controller_ports) for number in range(size)])

    @property
    def brokers(self) -> str:
        """host:port of each, comma separated, as clients want it."""
        return ",".join(node.brokers for node in self.nodes)

    def node(self, node_id: int) -> Kafka:
        """The broker of that id (the first is 1), to kill, pause, resume or restart."""
        return self.nodes[node_id - 1]


class _Recording(Kafka):
    """A broker that writes the classes it loaded to a file when it stops."""

    start_timeout_s = 120.0
    stop_timeout_s = 120.0

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._home = home
        self.archive = self.folder / "classes.jsa"

    def _command(self) -> list[str]:
        return self._java(self._home, f"-XX:ArchiveClassesAtExit={self.archive}")


def prepare(*, cache: Path = BUILD / "kafka") -> Path:
    """The folder with the jars of POM, a formatted data folder and a class archive; made where missing.

    Every broker starts from a copy of the formatted folder (2 s less than formatting), and from the
    archive (half the start-up). Processes that ask at once wait for the first one.

    Raises:
        LaunchError: Java or Maven is missing, or Maven cannot fetch the jars.
    """
    home = cache / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    with locked(cache / "lock"):
        if not home.exists():
            print("Fetching Kafka's jars (once) ...", file=sys.stderr)
            draft = Path(tempfile.mkdtemp(dir=cache, prefix="draft-"))
            try:
                _fetch_jars(draft)
                _format(draft)
                draft.rename(home)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        if not (home / "classes.jsa").exists():
            print("Preparing Kafka's quick start (once) ...", file=sys.stderr)
            broker = _Recording(home)
            try:
                broker.start()
                broker.stop()
                shutil.move(broker.archive, home / "classes.draft")
                (home / "classes.draft").rename(home / "classes.jsa")
            finally:
                broker.close()
    return home


def classpath(home: Path) -> str:
    """The jars in a fixed order, as the class archive wants them."""
    return ":".join(str(jar) for jar in sorted((home / "jars").glob("*.jar")))


def write_properties(folder: Path, *, port: int, node_id: int, controller_ports: Sequence[int]) -> Path:
    """The configuration of a broker that keeps its data in folder/data; the controllers have the ids from 1 on."""
    voters = ",".join(f"{voter}@127.0.0.1:{its_port}" for voter, its_port in enumerate(controller_ports, start=1))
    replicas = min(3, len(controller_ports))
    replication = "".join(
        f"{topic}.replication.factor={replicas}\n{topic}.min.isr={max(1, replicas - 1)}\n"
        for topic in ("transaction.state.log", "share.coordinator.state.topic")
    )
    path = folder / "server.properties"
    path.write_text(
        PROPERTIES.read_text()
        + f"""
node.id={node_id}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_ports[node_id - 1]}
controller.quorum.voters={voters}
log.dirs={folder / "data"}
offsets.topic.replication.factor={replicas}
{replication}"""
    )
    return path


def _name_node(meta: Path, node_id: int) -> None:
    """Give a copy of the formatted folder the node id of its broker and a directory id of its own."""
    text = re.sub(r"(?m)^node\.id=.*$", f"node.id={node_id}", meta.read_text())
    # 16 random bytes in URL-safe base64. Kafka refuses ids that start with a dash.
    meta.write_text(re.sub(r"(?m)^directory\.id=.*$", f"directory.id=A{secrets.token_urlsafe(16)[1:]}", text))


def _fetch_jars(home: Path) -> None:
    _run(
        "mvn", "--batch-mode", "--quiet", "--strict-checksums", "--file", str(POM), "dependency:copy-dependencies",
        "-DincludeScope=runtime", f"-DoutputDirectory={home / 'jars'}",
    )  # fmt: skip


def _format(home: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        properties = write_properties(Path(scratch), port=1, node_id=1, controller_ports=[2])
        _run(
            "java", *JVM, "-cp", classpath(home), "kafka.tools.StorageTool", "format",
            "--cluster-id", CLUSTER_ID, "--config", str(properties),
        )  # fmt: skip
        shutil.move(Path(scratch) / "data", home / "formatted")


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    except FileNotFoundError:
        raise LaunchError(f"Kafka needs {command[0]}, which is not installed; {INSTALL}") from None
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stdout.splitlines()[-10:])
        raise LaunchError(f"{command[0]} ended with status {error.returncode}, try again:\n{last}") from None
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{command[0]} did not end in 600 s; check the network and try again") from None
