"""Starts a single-node Apache Kafka (KRaft) without containers.

Its jars are fetched with Maven, once, into a cache folder of the user.
"""

import os
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.errors import ArtifactError, MistakeError, OutageError

KAFKA = "4.4.0"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_START_TIMEOUT_S = 240.0  # at a load of 24 on two cores 90 did not do
_JVM_FLAGS = ("-Xms256m", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>srp4ctr</groupId>
  <artifactId>embedded-kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


def missing_tools() -> list[str]:
    """Return which of ``java`` and ``mvn`` must still be installed for Apache Kafka."""
    tools = ["java"] if _jars().is_dir() else ["java", "mvn"]
    return [tool for tool in tools if shutil.which(tool) is None]


def start(
    folder: Path,
    port: int,
    controller_port: int,
    *,
    tied: bool,
    more: Mapping[str, str] | None = None,
) -> processes.Running:
    """Start Kafka with its data in ``folder/kafka``; return when it answers requests.

    ``more`` overrides our properties. Raises ``MistakeError`` without Java or Maven.
    """
    jars = fetch_jars()
    data = folder / "kafka"
    data.mkdir(parents=True, exist_ok=True)
    properties = data / "server.properties"
    ours = server_properties(data / "log", port, controller_port)
    lines = [f"{name}={value}\n" for name, value in (more or {}).items()]
    # Of duplicates, Java takes the last; it reads Latin-1 and escapes.
    text = (ours + "".join(lines)).replace("\\", "\\\\")
    properties.write_bytes(_escaped(text))
    _format(jars, data, properties)
    program = processes.Program(
        name="kafka",
        command=_java(jars, *_JVM_FLAGS, "kafka.Kafka", str(properties)),
    )
    return processes.launch(
        program, folder, lambda: _answers(port), tied=tied, timeout_s=_START_TIMEOUT_S
    )


def _escaped(text: str) -> bytes:
    """Return ``text`` in ASCII, other letters as Java's properties have them: \\u00f6."""
    units = text.encode("utf-16-be")
    codes = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    return "".join(chr(c) if c < 128 else f"\\u{c:04x}" for c in codes).encode()


def fetch_jars() -> Path:
    """Return the folder of Kafka's jars, fetched with Maven on first use (about 120 MB)."""
    missing = missing_tools()
    if missing:
        raise MistakeError(
            f"Apache Kafka needs Java 17 and Maven; missing: {', '.join(missing)}. "
            "Install them (apt install openjdk-17-jre-headless maven) or use "
            "--broker noida"
        )
    jars = _jars()
    with processes.locked(jars.parent / "fetch.lock"):
        if not jars.is_dir():
            _copy_dependencies(jars)
    return jars


def server_properties(log_dir: Path, port: int, controller_port: int) -> str:
    """Return a one-node broker-and-controller configuration on 127.0.0.1."""
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={ports.HOST}:{controller_port}
listeners=PLAINTEXT://{ports.HOST}:{port},CONTROLLER://{ports.HOST}:{controller_port}
advertised.listeners=PLAINTEXT://{ports.HOST}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
# One node holds every internal topic.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# A backfilled record has its event's time, which may be years ago.
log.retention.ms=-1
# A single consumer need not wait 3 s for others to join its group.
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


def _copy_dependencies(jars: Path) -> None:
    """Fetch Kafka and its dependencies; the folder appears only when it is complete."""
    partial = jars.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    pom = jars.parent / "pom.xml"
    pom.write_text(_POM)
    command = ["mvn", "-B", "-q", "-f", str(pom), _PLUGIN]
    command += [f"-DoutputDirectory={partial}", "-DincludeScope=runtime"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise OutageError(f"Maven could not fetch Kafka {KAFKA}:\n{result.stdout[-2000:]}")
    partial.replace(jars)


def _format(jars: Path, data: Path, properties: Path) -> None:
    """Give the data folder its cluster id, once."""
    if (data / "log" / "meta.properties").is_file():
        return
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # With "=": an id may begin with a dash, and then looks like an option.
    storage = ("kafka.tools.StorageTool", "format", "--standalone")
    command = _java(jars, *storage, f"--cluster-id={cluster}", "-c", str(properties))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ArtifactError(
            f"Kafka could not format {data}:\n{result.stdout}{result.stderr}"
        )


def _java(jars: Path, *arguments: str) -> tuple[str, ...]:
    return ("java", "-cp", f"{jars}/*", *arguments)


def _jars() -> Path:
    """Return where the jars are cached."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "srp4ctr" / f"kafka-{KAFKA}"


def _answers(port: int) -> bool:
    """Return whether the broker answers a metadata request, not only a connection."""
    if not ports.is_open(port):
        return False
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    from srp4ctr.streams.broker.clients import opened

    try:
        address = f"{ports.HOST}:{port}"
        with closing(opened(KafkaAdminClient, bootstrap_servers=address)) as admin:
            admin.describe_cluster()
    except KafkaError:
        return False
    return True
