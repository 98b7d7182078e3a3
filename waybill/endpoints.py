"""Settings of the places where models answer: `WAYBILL_ENDPOINTS__<NAME>__KIND` and so on."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, ValidationError, model_validator

from evidence.errors import ConfigError
from evidence.faults import faults
from evidence.hosts import is_this_machine
from inference.callers import Auth, CredentialConfig
from inference.credentials import Credentials
from inference.openai import Dialect, OpenAICompatibleBackend
from inference.routes import Endpoint
from policy.labels import Encryption

_TLS_FILES: Final = ("ca_file", "client_cert_file", "client_key_file")
_HOSTED_ONLY: Final = frozenset(
    {"key_header", "max_tokens_field", "extra_body", "headers", "header_files", "query", "connect_seconds",
     "reuse_connections", *_TLS_FILES}
)  # fmt: skip
_KEYS_IN_QUERIES: Final = frozenset(
    {"key", "api_key", "apikey", "subscription_key", "token", "access_token", "code", "sig", "signature"}
)


class EndpointConfig(BaseModel):
    """A place where models answer: `WAYBILL_ENDPOINTS__<NAME>__KIND`, `__URL`, `__PROVIDER`, `__KEY`, `__KEY_FILE`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["triton", "in-process", "openai"]
    """What it speaks: Triton's gRPC, OpenAI-compatible chat completions, or nothing: the model runs in this process."""
    url: str = ""
    """`HOST:PORT` for Triton; the base URL, ending before `/chat/completions`, for OpenAI-compatible."""
    provider: Annotated[str, Field(max_length=200, pattern=r"^[!-~]*$")] = ""
    """Who runs it, as evidence names it; if absent, the kind, and for OpenAI-compatible the host of the URL."""
    key: SecretStr | None = None
    """The workload's own key (never a user's); prefer KEY_FILE, which keeps it out of the environment."""
    key_file: Path | None = None
    """A file that holds the key."""
    auth: Auth | None = None
    """How it is told who calls: `key`, `minted`, `exchange` or `none`; `key` where there is one, else `none`."""
    audience: str | None = None
    """Whom tokens are for, as the endpoint calls itself."""
    token_url: str | None = None
    """The RFC 8693 endpoint, for `exchange`."""
    resource: str | None = None
    """The `resource` that a token exchange asks for, where its endpoint wants one."""
    signing_key_file: Path | None = None
    """The private key that tokens are signed with (`waybill identity keygen`)."""
    trust_domain: str | None = None
    """The SPIFFE trust domain of this deployment, for tokens."""
    token_seconds: float | None = None
    """Seconds that a minted token lives."""
    allow_plaintext: bool = False
    """Whether an address off this machine may be spoken to without TLS (a private network of your own)."""
    key_header: str = "Authorization"
    """The header for the key: as a bearer token in `Authorization`, as it is in any other, such as `api-key`."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the limit of generated tokens; newer models want `max_completion_tokens`."""
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields that are added to each request, as a JSON object."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Headers that are added to each request, as a JSON object of texts."""
    header_files: dict[str, Path] = Field(default_factory=dict)
    """The same for secret values: a JSON object of the files that hold them."""
    query: str = ""
    """Query that is added to the URL, such as `api-version=2024-10-21`; never a key."""
    ca_file: Path | None = None
    """Certificate authorities (PEM) that alone are trusted to name the endpoint; the system's if absent."""
    client_cert_file: Path | None = None
    """Certificate (PEM) by which the endpoint knows this client."""
    client_key_file: Path | None = None
    """Its private key (PEM), where that is not in the same file."""
    connect_seconds: float = Field(default=10.0, gt=0, le=300)
    """Seconds to make a connection, TLS included; how long a whole call may take is the route's `timeout_s`."""
    reuse_connections: bool = False
    """Whether connections are kept for later calls; `docs/routes.md` says what that costs."""

    @model_validator(mode="after")
    def _whole(self) -> EndpointConfig:
        if self.kind != "in-process" and not self.url:
            raise ValueError(f"an endpoint of kind {self.kind} needs a URL")
        if self.key is not None and self.key_file is not None:
            raise ValueError("give KEY or KEY_FILE, not both")
        for name in sorted(self.model_fields_set & _HOSTED_ONLY):
            if self.kind != "openai":
                raise ValueError(f"{name.upper()} is of no use to an endpoint of kind {self.kind}")
        tls = [name for name in _TLS_FILES if getattr(self, name) is not None]
        if tls and not self.url.startswith("https://"):
            raise ValueError(f"{tls[0].upper()} is of no use to an endpoint whose URL is not https://")
        if self.client_key_file is not None and self.client_cert_file is None:
            raise ValueError("CLIENT_KEY_FILE needs CLIENT_CERT_FILE")
        if "key_header" in self.model_fields_set and self.key is None and self.key_file is None:
            raise ValueError("KEY_HEADER needs KEY_FILE or KEY")
        if both := {name.lower() for name in self.headers} & {name.lower() for name in self.header_files}:
            raise ValueError(f"give {min(both)} in HEADERS or in HEADER_FILES, not both")
        self._query()
        return self

    def secret(self) -> SecretStr | None:
        """Give the key.

        Raises:
            ConfigError: the key's file cannot be read or is empty.
        """
        return self.key if self.key_file is None else _read_secret(self.key_file, "key file")

    def described(self, name: str) -> Endpoint:
        """Give what routing must know of it."""
        return Endpoint(
            name=name,
            provider=self.provider or self._host() or self.kind,
            encryption=self._encryption(),
            audience=self.audience or "",
        )

    def credentials(self, name: str) -> Credentials:
        """Make what tells the endpoint who calls.

        Raises:
            ConfigError: a setting or a file is wrong.
        """
        key = self.secret()
        said = {
            field: getattr(self, field)
            for field in ("audience", "token_url", "resource", "signing_key_file", "trust_domain", "token_seconds")
            if getattr(self, field) is not None
        }
        try:
            config = CredentialConfig(auth=self.auth or ("key" if key else "none"), **said)
        except ValidationError as error:
            told = "; ".join(": ".join([*map(str, one.place), one.text]) for one in faults(error, CredentialConfig))
            raise ConfigError(f"endpoint {name}: {told}") from None
        return config.build(name, key)

    def backend(self, name: str, *, connections: int) -> OpenAICompatibleBackend:
        """Make the back end of an OpenAI-compatible endpoint.

        Args:
            name: the endpoint's name, for errors.
            connections: calls at once.

        Raises:
            ConfigError: a setting or a file is wrong.
        """
        secret_headers = {header: _read_secret(path, f"file of {header}") for header, path in self.header_files.items()}
        try:
            return OpenAICompatibleBackend(
                base_url=self.url,
                authorized_calls=self.auth in {"minted", "exchange"},
                api_key=None if self.auth in {"minted", "exchange", "none"} else self.secret(),
                provider=self.described(name).provider,
                connections=connections,
                reuse_connections=self.reuse_connections,
                connect_timeout_s=self.connect_seconds,
                allow_plaintext=self.allow_plaintext,
                tls=self._tls(),
                dialect=Dialect(
                    max_tokens_field=self.max_tokens_field,
                    extra_body=self.extra_body,
                    extra_headers={**self.headers, **secret_headers},
                    query=self._query(),
                    key_header=self.key_header,
                ),
            )
        except ConfigError as error:
            raise ConfigError(f"endpoint {name}: {error}") from None

    def _query(self) -> dict[str, str]:
        try:
            pairs = parse_qsl(self.query, keep_blank_values=True, strict_parsing=True) if self.query else []
        except ValueError:
            raise ValueError("QUERY is no query: write name=value, several separated by &") from None
        if secret := sorted(name for name, _ in pairs if name.lower().replace("-", "_") in _KEYS_IN_QUERIES):
            raise ValueError(f"QUERY has {secret[0]} in it: a key goes in KEY_FILE, and its header in KEY_HEADER")
        if len(dict(pairs)) < len(pairs):
            raise ValueError("QUERY names something twice")
        return dict(pairs)

    def _tls(self) -> ssl.SSLContext | None:
        if self.ca_file is None and self.client_cert_file is None:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{self.ca_file} holds no certificates that can be read ({type(error).__name__})"
            ) from None
        if self.client_cert_file is not None:
            try:
                context.load_cert_chain(self.client_cert_file, self.client_key_file, password=_no_password)
            except (OSError, ssl.SSLError, ValueError) as error:
                files = " and ".join(str(path) for path in (self.client_cert_file, self.client_key_file) if path)
                raise ConfigError(f"{files}: no certificate with its key ({type(error).__name__})") from None
        return context

    def _host(self) -> str:
        """The host of an OpenAI-compatible endpoint, which names its provider where nobody else does."""
        try:
            return (urlsplit(self.url).hostname or "") if self.kind == "openai" else ""
        except ValueError:
            return ""

    def _encryption(self) -> Encryption:
        """What a waybill may say of the way there: only what the address itself shows."""
        if self.kind == "in-process":
            return "loopback"
        parts = urlsplit(self.url if "://" in self.url else f"//{self.url}")
        if parts.scheme == "https":
            return "tls"
        return "loopback" if is_this_machine(parts.hostname) else "none"


def _read_secret(path: Path, what: str) -> SecretStr:
    """Return what a file holds, without blanks around it.

    Raises:
        ConfigError: it cannot be read or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"the {what} {path} is not text in UTF-8") from None
    if not text:
        raise ConfigError(f"the {what} {path} is empty")
    return SecretStr(text)


def _no_password() -> str:
    """Refuse an encrypted key, instead of asking for its password at the terminal."""
    raise ValueError
