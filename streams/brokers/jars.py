"""The jars of Apache Kafka: from Maven Central by `kafka/pom.xml`, once, into a cache folder."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import subprocess
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import mkdtemp

from evidence.errors import ConfigError
from streams.brokers.process import Child

_RESOURCES = files("streams.brokers") / "kafka"
_POM = (_RESOURCES / "pom.xml").read_text()

LOGGING = (_RESOURCES / "log4j2.properties").read_text()
"""How a node logs."""

VERSION = re.findall(r"<kafka\.version>(.+?)</kafka\.version>", _POM)[0]
"""The version of Apache Kafka that the pom pins."""

JAVA = 17
"""The oldest Java that this version of Kafka runs on."""

_DOWNLOAD_S = 900.0


class Missing(ConfigError):  # noqa: N818 - it says what is the case, as `ApacheKafka.available` does
    """Java or Maven is not there, or the jars could not be had; the text says which and what to do."""


def missing_reason(cache: Path) -> str | None:
    """Why Apache Kafka cannot run here, in one sentence; None when it can.

    Args:
        cache: the folder that keeps the jars; Maven is needed only while they are not in it.
    """
    java = shutil.which("java")
    if java is None:
        return f"Apache Kafka needs Java {JAVA} or newer, and there is no program `java`"
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603 - no outside input
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if found is None or int(found.group(1)) < JAVA:
        named = f"version {found.group(1)}" if found else "of no known version"
        return f"Apache Kafka needs Java {JAVA} or newer, and {java} is {named}"
    if not jars_folder(cache).is_dir() and shutil.which("mvn") is None:
        return "Apache Kafka's jars come by Maven, and there is no program `mvn`"
    return None


async def fetch_jars(cache: Path, *, log: Path) -> Path:
    """Bring the jars into the cache where they are not there yet; returns their folder.

    Args:
        cache: the folder that keeps them between runs; several processes may fetch at the same time.
        log: what Maven says.

    Raises:
        Missing: there is no Maven, or it failed; the text has its last lines.
    """
    jars = jars_folder(cache)
    if jars.is_dir():
        return jars
    if shutil.which("mvn") is None:
        raise Missing("Apache Kafka's jars come by Maven, and there is no program `mvn`")
    fresh = _fresh_folder(cache)
    try:
        with as_file(_RESOURCES / "pom.xml") as pom:
            goal = ["dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
            maven = Child("Maven", ["mvn", "-q", "-B", "-f", str(pom), *goal], log=log)
            try:
                await maven.start()
                async with asyncio.timeout(_DOWNLOAD_S):
                    code = await maven.wait()
            except TimeoutError:
                raise Missing(str(maven.failure(f"brought no jars of Apache Kafka within {_DOWNLOAD_S:g} s"))) from None
            finally:
                maven.kill()
        if code != 0:
            raise Missing(str(maven.failure("could not bring the jars of Apache Kafka")))
        _publish(fresh, jars)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return jars


def jars_folder(cache: Path) -> Path:
    """Where the jars of exactly this pom lie: a changed pom gets a new folder."""
    return cache / f"jars-{VERSION}-{hashlib.sha256(_POM.encode()).hexdigest()[:8]}"


def _fresh_folder(cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    return Path(mkdtemp(prefix="fetching-", dir=cache.absolute()))


def _publish(fresh: Path, jars: Path) -> None:
    """Give the folder its name in one step: it is there complete, or not at all."""
    fresh.chmod(0o755)
    try:
        fresh.rename(jars)
    except OSError:
        if not jars.is_dir():  # another process was faster, and its jars are the same
            raise
