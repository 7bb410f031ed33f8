"""Apache Kafka (KRaft, no ZooKeeper), its jars from Maven Central: one broker, or three for fail-over tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from kafka.net.inet import KafkaNetSocket

from tests.servers.certificates import Authority
from tests.servers.process import Process, free_ports, program

VERSION = "4.1.1"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>kafka-libs</artifactId><version>1</version>
<dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"""
PROPERTIES = """process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={protocol}://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={protocol}://127.0.0.1:{client}
inter.broker.listener.name={protocol}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,{protocol}:{protocol}
log.dirs={data}
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
group.initial.rebalance.delay.ms={rebalance_delay_ms}
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=1000
auto.create.topics.enable=false
"""
USER, PASSWORD, MECHANISM = "ee", "ee-password", "SCRAM-SHA-512"
LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule"
SECURED = f"""ssl.keystore.type=PEM
ssl.keystore.location={{keystore}}
ssl.truststore.type=PEM
ssl.truststore.location={{authority}}
sasl.enabled.mechanisms={MECHANISM}
sasl.mechanism.inter.broker.protocol={MECHANISM}
listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config={LOGIN} required username="{USER}" password="{{password}}";
"""


class KafkaCluster:
    """Brokers are numbered from 1; each is broker and controller. With three, a topic can have three replicas.

    With an authority they have certificates of it, speak SASL_SSL alone, and let USER in with this password.
    """

    def __init__(
        self, directory: Path, authority: Authority | None = None, password: str = PASSWORD, rebalance_delay_ms: int = 0
    ) -> None:
        """rebalance_delay_ms: for how long a new group waits for more members; the broker's own default is 3000."""
        self.directory = directory
        self._rebalance_delay_ms = rebalance_delay_ms
        self._authority = authority
        self._password = password
        self.bootstrap = ""
        self.brokers: dict[int, Process] = {}

    def start(self, brokers: int = 1) -> None:
        """A second start keeps ports, topics and offsets. Blocks until every broker answers."""
        if not self.brokers:
            self._format(brokers)
        for number in self.brokers:
            self.start_broker(number, wait=False)
        for number in self.brokers:
            self._wait(number)

    def stop(self) -> None:
        for broker in self.brokers.values():  # all of them first: a broker without a quorum waits for one
            broker.send(signal.SIGTERM)
        for broker in self.brokers.values():
            broker.stop(seconds=10)

    def start_broker(self, number: int, *, wait: bool = True) -> None:
        if self.brokers[number].alive:
            return
        properties = str(self._properties(number))
        self.brokers[number].start([*_java("-Xms128m", "-Xmx384m"), "kafka.Kafka", properties])
        if wait:
            self._wait(number)

    def kill(self, number: int) -> None:
        self.brokers[number].stop(first=signal.SIGKILL)

    def pause(self, number: int) -> None:
        """The broker hangs: connections stay open and nothing answers."""
        self.brokers[number].pause()

    def resume(self, number: int) -> None:
        self.brokers[number].send(signal.SIGCONT)

    def forget_all(self) -> None:
        """The brokers, which must have ended, lose their disks: no topic and no offset is left, the ports stay."""
        for number in self.brokers:
            shutil.rmtree(self.directory / f"data-{number}")
            self._format_disk(number)

    def _properties(self, number: int) -> Path:
        return self.directory / f"broker-{number}.properties"

    def _wait(self, number: int) -> None:
        broker = self.brokers[number]
        broker.wait_until(lambda: "Kafka Server started" in broker.log_file.read_text())

    def _format(self, brokers: int) -> None:
        ports = free_ports(2 * brokers)
        clients, controllers = ports[:brokers], ports[brokers:]
        voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers, 1))
        copies = min(brokers, 3)
        for number, (client, controller) in enumerate(zip(clients, controllers, strict=True), 1):
            text = PROPERTIES.format(
                number=number, voters=voters, client=client, controller=controller, copies=copies,
                in_sync=max(1, copies - 1), data=self.directory / f"data-{number}",
                protocol="SASL_SSL" if self._authority else "PLAINTEXT", rebalance_delay_ms=self._rebalance_delay_ms,
            )  # fmt: skip
            if self._authority:
                certificate, key = self._authority.issue(f"broker-{number}", "127.0.0.1")
                keystore = self.directory / f"broker-{number}.pem"
                keystore.write_text(key.read_text() + certificate.read_text())
                text += SECURED.format(
                    keystore=keystore, authority=self._authority.certificate, password=self._password
                )
            self._properties(number).write_text(text)
            self._format_disk(number)
            self.brokers[number] = Process(self.directory, f"broker-{number}")
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in clients)

    def _format_disk(self, number: int) -> None:
        storage = ["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAQACAAAAAAAAAAQ"]
        if self._authority:
            storage += ["--add-scram", f"{MECHANISM}=[name={USER},password={self._password}]"]
        command = [*_java("-Xmx128m"), *storage, "-c", str(self._properties(number))]
        subprocess.run(command, check=True, capture_output=True)


class _DroppedSocket(socket.socket):
    def __del__(self) -> None:
        self.close()


def close_dropped_sockets() -> None:
    """Have kafka-python's sockets close without a warning.

    A client that is closed while it connects forgets its socket (3.0, `KafkaNetSocket.sock_connect`). The garbage
    collector would warn of it during any later test, which would fail for it.
    """
    KafkaNetSocket.socket = lambda _, *arguments: _DroppedSocket(*arguments)


def jars() -> Path:
    """The folder with Kafka's jars: KAFKA_LIBS, or a cache that the first call fills by Maven (43 MB)."""
    if given := os.environ.get("KAFKA_LIBS"):
        return Path(given)
    folder = Path.home() / ".cache/execute-engine" / f"kafka-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _download(folder)
    return folder


def _download(folder: Path) -> None:
    maven = program("mvn", "maven")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        Path(scratch, "pom.xml").write_text(POM)
        copy = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={scratch}/libs"]
        subprocess.run([maven, "-q", "-B", *copy], cwd=scratch, check=True)
        Path(scratch, "libs").rename(folder)


def _java(*options: str) -> list[str]:
    java = program("java", "openjdk-17-jre-headless")
    return [java, *options, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars()}/*"]
