"""docker-compose.yml and the Dockerfile: what can be known of them without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_fixtures import Prometheus, exposition_url, prometheus

from waybill import settings
from waybill.parts import check_rulebook

__all__ = ["exposition_url", "prometheus"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
ONE_SHOT = {"topics"}

each_service = pytest.mark.parametrize("name", SERVICES)


def client() -> list[str] | None:
    """Give the command of Docker's compose client; None where there is none."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    return None


def test_docker_compose_accepts_the_file() -> None:
    """Docker's own client finds the file whole; no engine is needed for that."""
    command = client()
    if command is None:
        pytest.skip("there is no `docker compose`: apt-get install docker-compose-plugin (from Docker's own packages)")
    done = subprocess.run(
        [*command, "--file", str(FILE), "config", "--quiet"],
        env={
            **os.environ,
            "GRAFANA_ADMIN_PASSWORD": "only-for-this-check",
            "TOKEN_ISSUER": "https://id.example.org",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_part_is_there() -> None:
    """Broker, topics, models, provider, worker, Prometheus and Grafana: the whole pipeline."""
    assert set(SERVICES) == {"kafka", "topics", "triton", "stand-in", "worker", "prometheus", "grafana"}


@each_service
def test_a_service_says_when_it_is_well(name: str) -> None:
    """Each service has a health check, or ends by itself and is not started again."""
    service = SERVICES[name]
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    check = service["healthcheck"]
    assert check["test"][0] == "CMD"
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


@each_service
def test_images_are_pinned(name: str) -> None:
    """No image floats: each has a version as its tag."""
    _, _, tag = SERVICES[name]["image"].rpartition(":")
    assert re.match(r"v?\d+\.\d+", tag), SERVICES[name]["image"]
    for image in re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE):
        assert re.search(r":v?\d+\.\d+", image), image


@each_service
def test_only_this_machine_can_reach_what_is_published(name: str) -> None:
    """Every published port is bound to loopback."""
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@each_service
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    """No capability, no way to gain one, no privilege; our own containers cannot write to their file system."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert service.get("network_mode") is None
    if service["image"].startswith("waybill:"):
        assert service["read_only"] is True


@each_service
def test_what_is_mounted_exists_and_cannot_be_changed(name: str) -> None:
    """Every file and folder of the project that is mounted is there and read-only; every volume is declared."""
    for mount in SERVICES[name].get("volumes", ()):
        if isinstance(mount, dict):  # what only the operator has
            assert mount["source"].startswith("./secrets/")
            assert mount["read_only"] is True
            assert mount["bind"] == {"create_host_path": False}
            assert mount["source"].removeprefix("./") in (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
            continue
        source, _, mode = (*mount.split(":"), "")[:3]
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
            assert mode == "ro"
        else:
            assert source in COMPOSE["volumes"]


@each_service
def test_a_service_waits_for_what_it_needs(name: str) -> None:
    """Who is waited for exists; services are waited for until they are well, one-shot ones until they are done."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert how == {"condition": wanted}
        assert other in SERVICES


@pytest.mark.parametrize("name", ["topics", "worker"])
def test_settings_are_known(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself accepts the environment that it gets."""
    given = {key: value for key, value in SERVICES[name]["environment"].items() if key.startswith("WAYBILL_")}
    assert len(given) == len(SERVICES[name]["environment"])
    for key in [key for key in os.environ if key.startswith("WAYBILL_")]:
        monkeypatch.delenv(key)
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    assert settings.load().kafka == "kafka:19092"


def worker_settings(monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """Give the worker's settings, its mounted configuration taken from the project."""
    for key, value in SERVICES["worker"]["environment"].items():
        monkeypatch.setenv(key, value)
    config = ROOT / "config"
    return settings.load(routes=config / "routes.yaml", policy=config / "policy", decisions=config / "decisions")


def test_the_worker_can_start_with_what_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes, policies and decision records agree under the worker's environment, and nobody's key is needed."""
    found = worker_settings(monkeypatch)
    book = check_rulebook(found, datetime.now(UTC))
    assert {route.endpoint for route in book.table.routes} == set(found.endpoints)
    assert found.endpoints["hosted"].allow_plaintext is True
    assert found.endpoints["local"].url == "triton:8001"


def test_the_worker_knows_who_signs_and_has_no_default_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Identity is checked, by keys that the operator gives; compose refuses to start without the issuer's name."""
    identity = worker_settings(monkeypatch).identity
    assert identity
    assert identity.method == "jwt"
    targets = [mount["target"] for mount in SERVICES["worker"]["volumes"] if isinstance(mount, dict)]
    assert targets == [identity.jwks]
    assert SERVICES["worker"]["environment"]["WAYBILL_IDENTITY__ISSUER"].startswith("${TOKEN_ISSUER:?")


def test_what_the_worker_writes_outlives_it() -> None:
    """Home and vault are volumes, and folders of the image that its user owns."""
    environment, mounts = SERVICES["worker"]["environment"], SERVICES["worker"]["volumes"]
    volumes = {mount.split(":")[1] for mount in mounts if isinstance(mount, str) and not mount.startswith("./")}
    assert volumes == {environment["WAYBILL_HOME"], environment["WAYBILL_VAULT"]}
    for folder in volumes:
        assert re.search(rf"install -d -o waybill -g waybill -m 7[05]0 {folder}\b", DOCKERFILE), folder


def test_what_an_operator_keeps_in_secrets_stays_there() -> None:
    """Git and the images take nothing of the folder `secrets`."""
    assert "secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert not any("secrets" in line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines())


def test_names_between_containers_are_names_of_services() -> None:
    """Every address that one container gives for another is a service, on the port that it listens on."""
    worker = SERVICES["worker"]["environment"]
    stand_in = SERVICES["stand-in"]["command"]
    port = stand_in[stand_in.index("--port") + 1]
    assert worker["WAYBILL_ENDPOINTS__HOSTED__URL"] == f"http://stand-in:{port}/v1"
    assert worker["WAYBILL_KAFKA"] in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    scraping = yaml.safe_load((ROOT / "dashboards" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job["static_configs"][0] for job in scraping["scrape_configs"]}
    assert jobs["waybill"]["targets"] == [f"worker:{worker['WAYBILL_WEB_PORT']}"]
    assert jobs["waybill"]["labels"]["site"] == worker["WAYBILL_SITE"]
    assert jobs["triton"]["targets"] == ["triton:8002"]
    sources = yaml.safe_load((ROOT / "dashboards/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"


def test_kafka_makes_no_topic_by_itself_and_is_the_version_that_tests_use() -> None:
    """Topics are made by the program alone, and the broker is the one that guarantees were proved on."""
    environment = SERVICES["kafka"]["environment"]
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    pom = (ROOT / "streams" / "brokers" / "kafka" / "pom.xml").read_text(encoding="utf-8")
    version = re.search(r"<kafka.version>(.+?)</kafka.version>", pom)
    assert version
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"
    assert len(re.search(r":-([\w-]+)\}", environment["CLUSTER_ID"])[1]) == 22, "16 bytes in base64"


def test_grafana_lets_nobody_in_unasked_and_no_password_is_in_the_file() -> None:
    """Anonymous access is off and the administrator's password comes from a secret that the file only names."""
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    (secret,) = SERVICES["grafana"]["secrets"]
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == f"/run/secrets/{secret}"
    assert COMPOSE["secrets"] == {secret: {"environment": "GRAFANA_ADMIN_PASSWORD"}}
    for service in SERVICES.values():
        assert not any(re.search(r"(PASSWORD|SECRET|TOKEN|_KEY)$", key) for key in service.get("environment", {}))


def test_a_container_with_a_secret_from_the_environment_is_writable() -> None:
    """Docker copies such a secret into the container, which a read-only one refuses."""
    for name, service in SERVICES.items():
        assert not (service.get("secrets") and service.get("read_only")), name


def test_the_image_is_built_from_what_exists_as_a_plain_user() -> None:
    """What the Dockerfile copies is there and not ignored, what it installs is hashed, and root does not run it."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, flags=re.MULTILINE):
        *sources, _ = line.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored, source
    installs = re.findall(r"pip install ((?:[^\n\\]|\\\n)+)", DOCKERFILE)
    assert installs
    assert all("--require-hashes" in each for each in installs)
    for stage in DOCKERFILE.split("FROM ")[1:]:
        users = re.findall(r"^USER (\S+)", stage, flags=re.MULTILINE)
        assert users
        assert users[-1] not in {"root", "0"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"bench"}
    assert packages <= {
        source for line in re.findall(r"^COPY (\S+) ", DOCKERFILE, flags=re.MULTILINE) for source in [line]
    }


def test_images_have_a_target_each() -> None:
    """Every image that compose builds is a stage of the Dockerfile."""
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, flags=re.MULTILINE))
    built = {service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert built == stages


@pytest.mark.prometheus
def test_prometheus_health_check_tells_well_from_ill(prometheus: Prometheus) -> None:
    """The health check's own command succeeds with a Prometheus that answers and fails without."""
    _, *command = SERVICES["prometheus"]["healthcheck"]["test"]
    for url, wanted in ((prometheus.url, True), ("http://127.0.0.1:9", False)):
        argv = [url if part.startswith("http") else part for part in command]
        done = subprocess.run(argv, capture_output=True, check=False, timeout=30)
        assert (done.returncode == 0) is wanted
