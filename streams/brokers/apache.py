"""Apache Kafka itself, where Java is: one node to work with, three to break.

The jars come from Maven Central by `kafka/pom.xml`, once, into a cache folder; after that only Java is needed. Every
node is broker and KRaft controller in one, listens on loopback only, and creates no topic by itself. The settings are
those of a production broker except for sizes (few partitions in the internal topics, a small heap), the wait before a
group's first assignment, which is nothing, and, in a cluster, how soon a lost node is missed.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from evidence.errors import ConfigError, UnavailableError
from streams.brokers.jars import LOGGING, VERSION, Missing, fetch_jars, jars_folder, missing_reason
from streams.brokers.probe import listening, log_id_of, node_count
from streams.brokers.process import Child, free_ports

_READY_S = 120.0  # three nodes on a busy machine of two cores took 25
_INTERNAL_PARTITIONS = 4  # instead of 50: a laptop's start is then a matter of seconds, and nothing else changes

# For a program of less than a second: the quick compiler only, and a collector without threads.
_BRIEF = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

# A killed node is missed, and may come back, after 3 s instead of 9. Not on a single node: there is nobody to take over
# from it, and a busy machine would only fence it.
_CLUSTER = {"broker.heartbeat.interval.ms": "500", "broker.session.timeout.ms": "3000"}


class ApacheKafka:
    """A cluster of Apache Kafka nodes on this machine.

    Attributes:
        kind: what it is, with version and number of nodes.
        notes: what a user must know about this start; always empty here.
        log_id: names the log that the cluster keeps (12 hex digits, from its cluster id); "" before the first start.
    """

    def __init__(
        self, home: Path, *, cache: Path, nodes: int = 1, heap_mb: int = 512, port: Callable[[], int] | None = None
    ) -> None:
        """Describe the cluster; nothing runs before `start`.

        Args:
            home: the run's folder; node N keeps its data in `kafka/node-N/`, its log is `logs/kafka-N.log`.
            cache: the folder that keeps the jars between runs.
            nodes: 1, or an odd number; internal topics then have as many replicas, up to three.
            heap_mb: the largest Java heap of a node, in MiB.
            port: returns the port of the first node; None takes any that is free.
        """
        if nodes < 1 or nodes % 2 == 0:
            raise ConfigError(f"a cluster of {nodes} nodes has no safe majority; use 1 or 3")
        self.kind = f"Apache Kafka {VERSION} ({nodes} node{'s' if nodes > 1 else ''})"
        self.notes: tuple[str, ...] = ()
        self.log_id = ""
        self._root = home / "kafka"
        self._logs = home / "logs"
        self._cache = cache
        self._nodes = nodes
        self._heap_mb = heap_mb
        self._port = port
        self._ports: list[tuple[int, int]] = []
        self._children: dict[int, Child] = {}

    def available(self) -> str | None:
        """Why it cannot run here, in one sentence; None when it can."""
        return missing_reason(self._cache)

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes, whether they run or not; "" before the first start."""
        return ",".join(f"127.0.0.1:{port}" for port, _ in self._ports)

    def pid(self, node: int = 1) -> int | None:
        """The process id of node `node` (the first is 1), or None while it is not running."""
        child = self._children.get(node)
        return None if child is None else child.pid

    async def start(self) -> str:
        """Start all nodes; returns the bootstrap addresses once every node serves.

        Raises:
            Missing: Java, Maven or the jars are not to be had.
            ConfigError: it is already started, or the data were written by another number of nodes.
            ChildError: a node ended or did not serve in time; its log's last lines are in the text.
        """
        if self._children:
            raise ConfigError("Apache Kafka is already started; stop it before starting it again")
        # At the side, because asking Java for its version takes a tenth of a second of this loop's time.
        if reason := await asyncio.to_thread(self.available):
            raise Missing(reason)
        await fetch_jars(self._cache, log=self._logs / "maven.log")
        written = sorted(self._root.glob("node-*/data/meta.properties"))
        if written and len(written) != self._nodes:
            raise ConfigError(
                f"{self._root} holds {len(written)} nodes, not {self._nodes}; remove it or choose another home"
            )
        ports = free_ports(2 * self._nodes)
        if self._port is not None:
            ports[0] = self._port()
        self._ports = list(zip(ports[::2], ports[1::2], strict=True))
        for node in self._all:
            self._configure(node)
        try:
            if not written:
                await self._format(_new_cluster_id())
            self.log_id = log_id_of(self._cluster_id())
            await asyncio.gather(*(self._launch(node) for node in self._all))
            await asyncio.gather(*(self._serving(node) for node in self._all))
        except BaseException:
            self._kill_all()
            raise
        return self.bootstrap

    async def stop(self, grace_s: float = 15) -> None:
        """Stop all nodes in order, by force after `grace_s` seconds. Idempotent; the data stay."""
        children = list(self._children.values())
        try:
            await asyncio.gather(*(child.stop(grace_s) for child in children))
        finally:
            self._kill_all()

    def kill(self) -> None:
        """End all nodes at once, as a power cut of the processes would."""
        self._kill_all()

    def kill_node(self, node: int) -> None:
        """End node `node` (the first is 1) at once with SIGKILL; the others go on."""
        child = self._children.pop(node, None)
        if child is None:
            raise ConfigError(f"node {node} of Apache Kafka is not running")
        child.kill()

    async def start_node(self, node: int) -> None:
        """Start node `node` again on its old ports and data; returns once the cluster counts it among its brokers.

        Raises:
            ChildError: it ended or did not serve in time.
        """
        if not self._ports or node not in self._all:
            raise ConfigError(f"there is no node {node}; start the cluster first, its nodes are 1 to {self._nodes}")
        if node in self._children:
            raise ConfigError(f"node {node} of Apache Kafka is already running")
        try:
            await self._launch(node)
            await self._serving(node, at_least=len(self._children))
        except BaseException:
            child = self._children.pop(node, None)
            if child is not None:
                child.kill()
            raise

    async def wait(self) -> int:
        """Wait until any node ends by itself, and return its exit status."""
        if not self._children:
            raise ConfigError("Apache Kafka is not started, so there is no end to wait for")
        waits = [asyncio.ensure_future(child.wait()) for child in self._children.values()]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    @property
    def _all(self) -> range:
        return range(1, self._nodes + 1)

    def _folder(self, node: int) -> Path:
        return self._root / f"node-{node}"

    def _configure(self, node: int) -> None:
        folder = self._folder(node)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log4j2.properties").write_text(LOGGING)
        settings = server_properties(node, self._ports, folder / "data")
        (folder / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def _java(self, node: int, options: Sequence[str], program: str, *arguments: str) -> Child:
        folder = self._folder(node)
        logging = f"-Dlog4j2.configurationFile={(folder / 'log4j2.properties').absolute()}"
        argv = ["java", *options, logging, "-cp", f"{jars_folder(self._cache).absolute()}/*", program, *arguments]
        settings = str((folder / "server.properties").absolute())
        return Child(f"node {node} of Apache Kafka", [*argv, settings], log=self._logs / f"kafka-{node}.log")

    async def _format(self, cluster: str) -> None:
        arguments = ("kafka.tools.StorageTool", "format", "-t", cluster, "-c")
        formats = [self._java(node, _BRIEF, *arguments) for node in self._all]
        try:
            await asyncio.gather(*(child.start() for child in formats))
            for child in formats:
                if await child.wait() != 0:
                    raise child.failure("could not be formatted")  # noqa: TRY301 - cleaned up below like a cancellation
        except BaseException:
            for child in formats:
                child.kill()
            for node in self._all:  # a half-formatted node would neither start nor be formatted again
                shutil.rmtree(self._folder(node) / "data", ignore_errors=True)
            raise

    def _cluster_id(self) -> str:
        meta = (self._folder(1) / "data" / "meta.properties").read_text()
        found = re.search(r"^cluster\.id=(.+)$", meta, re.MULTILINE)
        if found is None:
            raise ConfigError(
                f"{self._folder(1)}/data/meta.properties names no cluster; remove {self._root} to start anew"
            )
        return found.group(1).strip()

    async def _launch(self, node: int) -> None:
        # The collector and its pause goal are those of Kafka's own start script.
        options = (f"-Xmx{self._heap_mb}m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:+ExitOnOutOfMemoryError")
        child = self._java(node, options, "kafka.Kafka")
        self._children[node] = child
        await child.start()

    async def _serving(self, node: int, *, at_least: int | None = None) -> None:
        wanted = self._nodes if at_least is None else at_least
        address = f"127.0.0.1:{self._ports[node - 1][0]}"

        async def serves() -> bool:
            if not await listening(address):
                return False
            with suppress(UnavailableError):
                return await node_count(address) >= wanted
            return False

        await self._children[node].wait_ready(serves, _READY_S)

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.kill()
        self._children = {}


def server_properties(node: int, ports: list[tuple[int, int]], data: Path) -> dict[str, str]:
    """The settings of one node.

    Args:
        node: which one; the first is 1.
        ports: for each node of the cluster, its client port and its controller port, on 127.0.0.1.
        data: the folder of its log.
    """
    client, controller = ports[node - 1]
    replicas = min(3, len(ports))
    in_sync = max(1, replicas - 1)
    voters = ",".join(f"{number}@127.0.0.1:{port}" for number, (_, port) in enumerate(ports, start=1))
    return {
        "process.roles": "broker,controller",
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{client}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data.absolute()),
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(replicas),
        "offsets.topic.num.partitions": str(_INTERNAL_PARTITIONS),
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(in_sync),
        "transaction.state.log.num.partitions": str(_INTERNAL_PARTITIONS),
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        "share.coordinator.state.topic.num.partitions": str(_INTERNAL_PARTITIONS),
        "group.initial.rebalance.delay.ms": "0",
        **(_CLUSTER if len(ports) > 1 else {}),
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),  # of the heap; the default is 128 MiB
    }


def _new_cluster_id() -> str:
    while True:
        made = urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")
        if not made.startswith("-"):  # the tool would read it as an option
            return made


__all__ = ["ApacheKafka", "Missing", "missing_reason", "server_properties"]
