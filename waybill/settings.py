"""Settings: the one place that reads the environment. Every setting is `WAYBILL_<NAME>`; an unknown one is an error.

`docs/settings.md` lists them all, and a test compares it with this module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from evidence.errors import ConfigError
from evidence.faults import Fault, faults, nearest
from evidence.files.places import BucketAccess, open_files
from evidence.files.seam import Files
from inference.routes import Endpoint
from policy.vault.sealing import Vault
from policy.versions import Versions
from streams.kafka import KafkaSettings
from streams.keys import IdentityConfig
from waybill.endpoints import EndpointConfig

PREFIX: Final = "WAYBILL_"


class BucketConfig(BaseModel):
    """How a bucket with evidence is reached: `WAYBILL_EVIDENCE_S3__ENDPOINT` and so on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = None
    """URL of an S3-compatible server; Amazon's where it is absent."""
    region: str | None = None
    """The bucket's region; `AWS_REGION` where it is absent."""
    credentials_file: Path | None = None
    """An AWS credentials file; what AWS's own programs take where it is absent."""
    profile: str = "default"
    """Section of that file."""
    allow_plaintext: bool = False
    """Whether an endpoint off this machine may be spoken to without TLS (a private network of your own)."""

    def access(self) -> BucketAccess:
        """Give it as the store takes it."""
        return BucketAccess(**self.model_dump())


class Settings(BaseSettings):
    """What a deployment sets."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    home: Path = Path(".waybill")
    """Folder that holds all that a run writes."""
    site: str = Field(default="local", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    """Name of this place; a column of every evidence row."""
    routes: Path = Path("config/routes.yaml")
    """The route table."""
    policy: Path = Path("config/policy")
    """Folder of labels, policies and retention rules; a version that was activated stands above it."""
    decisions: Path = Path("config/decisions")
    """Folder of the runtime decision records."""
    identity: IdentityConfig | None = None
    """How actor and tenant of a request are established; a worker does not start without."""
    vault: Path | None = None
    """Folder of keys and of what is kept encrypted, shared by all workers of a site; `<home>/vault` if absent."""
    vault_key_file: Path | None = None
    """The vault's master key; `<vault>/master.key`, made on first use, if absent."""
    names_python: Path | None = None
    """Python of the environment that finds names of people and places; needed where the labels ask for them."""
    endpoints: dict[str, EndpointConfig] = Field(default_factory=dict)
    """Places where models answer, by name."""
    kafka: str = "127.0.0.1:9092"
    """The broker, `HOST:PORT`, several separated by commas."""
    kafka_prefix: str = ""
    """Put before the names of topics, groups and transactions, so that several pipelines share one cluster."""
    kafka_session_ms: int = Field(default=30_000, ge=6000, le=1_800_000)
    """Milliseconds without a heartbeat after which the broker gives a worker's partitions to another one."""
    kafka_security: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = "PLAINTEXT"
    """Security protocol of the broker."""
    kafka_ca_file: Path | None = None
    """Certificate authority of the broker; the system's if absent."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """SASL mechanism."""
    kafka_user: str | None = None
    """SASL user."""
    kafka_password_file: Path | None = None
    """File that holds the SASL password."""
    partitions: int = Field(default=4, ge=1, le=1024)
    """Partitions of each topic that `waybill topics create` makes."""
    replication: int = Field(default=1, ge=1, le=9)
    """Copies of each partition; from 3 on, two must have a record before it counts as written."""
    log_id: str | None = None
    """Which log the offsets belong to; the cluster's own id if absent."""
    max_request_bytes: int = Field(default=262_144, ge=1024, le=700_000)
    """Largest request that admission takes, in bytes."""
    max_local: int = Field(default=8, ge=1, le=10_000)
    """Requests to local models that one worker has in flight."""
    max_hosted: int = Field(default=256, ge=1, le=10_000)
    """Requests to hosted providers that one worker has in flight."""
    drain_seconds: float = Field(default=20.0, ge=0, le=600)
    """How long requests in flight get to end when a worker stops or gives partitions back; then they are in doubt."""
    freshness_seconds: float = Field(default=5.0, ge=0.5, le=3600)
    """How old evidence may be at most before it can be queried."""
    idle_seconds: float = Field(default=60.0, ge=1, le=86_400)
    """Where no evidence comes, each log says so this often, in a signed commit without rows."""
    evidence_store: str | None = None
    """Where evidence lies: a folder, or `s3://BUCKET/PREFIX`; `<home>/evidence` if absent."""
    evidence_s3: BucketConfig = Field(default_factory=BucketConfig)
    """How the bucket is reached."""
    sites: Path = Path("config/sites.yaml")
    """The sites whose evidence is asked together, and what may leave each."""
    site_seconds: float = Field(default=10.0, gt=0, le=600)
    """Seconds without anything from a site after which it counts as down."""
    evidence_keys: Path | None = None
    """Folder of the keys that sign the logs, shared by all workers of a site; `<home>/keys` if absent."""
    compact_rows: int = Field(default=1_000_000, ge=1000, le=50_000_000)
    """Rows of a compacted Parquet file at most."""
    compact_seconds: float = Field(default=60.0, ge=1, le=86_400)
    """How often a worker looks for small files to compact and for rows past their retention."""
    grace_seconds: float = Field(default=900.0, ge=0, le=86_400)
    """How long a file that compaction replaced lies on for readers that began before; more than a query may take."""
    fetch_pause_ms: int = Field(default=0, ge=0, le=1000)
    """Pause after a fetch that brought nothing, for brokers that do not hold fetches open (the development broker)."""
    sink_rows: int = Field(default=50_000, ge=1, le=1_000_000)
    """Rows of one Parquet file at most."""
    web_host: str = "127.0.0.1"
    """Where health and metrics are served."""
    web_port: int = Field(default=6066, ge=0, le=65_535)
    """Port of health and metrics."""
    otlp_endpoint: str | None = None
    """Base URL of an OpenTelemetry collector (OTLP over HTTP); spans are exported where it is set."""
    sql_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Time limit of one SQL query."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take flags first and then the environment; no file is read behind the user's back."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @property
    def vault_folder(self) -> Path:
        """The vault's folder."""
        return self.vault or self.home / "vault"

    def open_vault(self) -> Vault:
        """Give the vault; nothing is touched yet."""
        return Vault(self.vault_folder, self.vault_key_file)

    @property
    def policy_versions(self) -> Versions:
        """Give the versions of policy that were activated here."""
        return Versions(self.home / "policies")

    def policy_folder(self) -> Path:
        """Give the folder of the policies in force.

        Raises:
            ConfigError: the record of what was activated cannot be read.
        """
        active = self.policy_versions.active()
        return active.folder if active else self.policy

    def described_endpoints(self) -> dict[str, Endpoint]:
        """Give what routing must know of every endpoint."""
        return {name: config.described(name) for name, config in self.endpoints.items()}

    def evidence_files(self) -> Files:
        """Give the files of the evidence store; nothing is touched yet.

        Raises:
            ConfigError: the place cannot be used.
        """
        return open_files(self.evidence_store or self.home / "evidence", self.evidence_s3.access())

    @property
    def evidence_keys_folder(self) -> Path:
        """The folder of the keys that sign the logs."""
        return self.evidence_keys or self.home / "keys"

    def kafka_settings(self) -> KafkaSettings:
        """Give what Kafka clients need.

        Raises:
            ConfigError: the password file cannot be read, or user and password do not come together.
        """
        password = None
        if self.kafka_password_file is not None:
            try:
                password = self.kafka_password_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigError(f"cannot read {self.kafka_password_file}: {error.strerror}") from error
        if self.kafka_security.startswith("SASL") and not (self.kafka_user and password):
            raise ConfigError(
                "WAYBILL_KAFKA_USER and WAYBILL_KAFKA_PASSWORD_FILE are needed with " + self.kafka_security
            )
        return KafkaSettings(
            bootstrap=self.kafka,
            prefix=self.kafka_prefix,
            session_timeout_ms=self.kafka_session_ms,
            security_protocol=self.kafka_security,
            ca_file=str(self.kafka_ca_file) if self.kafka_ca_file else None,
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_user,
            sasl_password=password,
        )


def load(environment: Mapping[str, str] | None = None, **flags: Any) -> Settings:
    """Read the settings.

    Args:
        environment: where variables are looked for unknown names; the process's own if None.
        **flags: what the command line says; None means that it says nothing.

    Raises:
        ConfigError: a setting is unknown or wrong; the text names each and never repeats its value.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    nested = (PREFIX + "ENDPOINTS__", PREFIX + "IDENTITY__", PREFIX + "EVIDENCE_S3__")
    for name in environment if environment is not None else os.environ:
        if name.startswith(PREFIX) and name not in known and not name.startswith(nested):
            head, nested_by, rest = name.removeprefix(PREFIX).partition("__")
            near = nearest(head, sorted(Settings.model_fields))
            meant = f"did you mean {PREFIX}{near.upper()}{nested_by}{rest}? " if near else ""
            raise ConfigError(f"unknown setting {name}: {meant}docs/settings.md lists all settings")
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except SettingsError as error:
        named = ", ".join(_no_json(environment if environment is not None else os.environ)) or str(error)
        raise ConfigError(f"a setting that must be JSON is not: {named}") from None
    except ValidationError as error:
        lines = [f"  {_variable(fault.place)}: {_said(fault)}" for fault in faults(error, Settings)]
        raise ConfigError("\n".join(["these settings are wrong:", *lines])) from None


def child_environment(**changes: str) -> dict[str, str]:
    """Give the environment for a program that this one starts: its own, with changes."""
    return {**os.environ, **changes}


def _no_json(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that begin as JSON does and are none."""
    found = []
    for name, value in environment.items():
        if name.startswith(PREFIX) and value.lstrip()[:1] in ("{", "["):
            try:
                from_json(value)
            except ValueError:
                found.append(name)
    return found


def _said(fault: Fault) -> str:
    """Return a fault with the settings' names for fields: an unknown one is told with the setting that is nearest."""
    if fault.kind != "extra_forbidden":
        return fault.text
    _, marked, meant = fault.text.partition("did you mean ")
    near = f"; did you mean {_variable((*fault.place[:-1], meant.rstrip('?')))}?" if marked else ""
    return f"unknown setting{near}"


def _variable(where: tuple[int | str, ...]) -> str:
    return PREFIX + "__".join(str(part) for part in where).upper()
