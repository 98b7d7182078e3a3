"""Settings: what is unknown or wrong stops the program, by name and without the value."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evidence.errors import ConfigError
from waybill.endpoints import EndpointConfig
from waybill.settings import Settings, child_environment, load

MARK = "Zq7planted"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    """No setting of the machine that runs the tests counts."""
    for name in list(os.environ):
        if name.startswith("WAYBILL_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("WAYBILL_SIET", MARK, "unknown setting WAYBILL_SIET"),
        ("WAYBILL_SITE", f"{MARK} !", "WAYBILL_SITE"),
        ("WAYBILL_PARTITIONS", MARK, "WAYBILL_PARTITIONS"),
        ("WAYBILL_PARTITIONS", "0", "WAYBILL_PARTITIONS"),
        ("WAYBILL_FRESHNESS_SECONDS", "0.1", "WAYBILL_FRESHNESS_SECONDS"),
        ("WAYBILL_FRESHNESS_SECONDS", "nan", "WAYBILL_FRESHNESS_SECONDS"),
        ("WAYBILL_DRAIN_SECONDS", "inf", "WAYBILL_DRAIN_SECONDS"),
        ("WAYBILL_KAFKA_SECURITY", MARK, "WAYBILL_KAFKA_SECURITY"),
        ("WAYBILL_ENDPOINTS", MARK, "must be JSON"),
        ("WAYBILL_ENDPOINTS__HOSTED__KIND", MARK, "WAYBILL_ENDPOINTS__HOSTED__KIND"),
        ("WAYBILL_ENDPOINTS__HOSTED__KYND", MARK, "WAYBILL_ENDPOINTS__HOSTED__KYND"),
        ("WAYBILL_ENDPOINTS__HOSTED__KEY", MARK, "WAYBILL_ENDPOINTS__HOSTED__KIND"),
    ],
)
def test_a_wrong_setting_is_named_and_not_repeated(monkeypatch, name, value, told):
    """The error names the variable, and never its value."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load()
    assert told in str(caught.value)
    assert MARK not in str(caught.value)


def test_the_command_line_goes_before_the_environment(monkeypatch):
    """A flag counts more than a variable, and a flag that says nothing leaves the variable."""
    monkeypatch.setenv("WAYBILL_SITE", "there")
    assert load(site="here").site == "here"
    assert load(site=None).site == "there"


def test_no_file_is_read_behind_the_users_back(monkeypatch, tmp_path):
    """A `.env` file in the working folder changes nothing."""
    (tmp_path / ".env").write_text("WAYBILL_SITE=elsewhere\n")
    monkeypatch.chdir(tmp_path)
    assert load().site == Settings().site == "local"


@pytest.mark.parametrize(
    ("config", "encryption"),
    [
        ({"kind": "openai", "url": "https://api.example.com/v1"}, "tls"),
        ({"kind": "openai", "url": "http://127.0.0.1:9000/v1"}, "loopback"),
        ({"kind": "openai", "url": "http://[::1]:9000/v1"}, "loopback"),
        ({"kind": "openai", "url": "http://models.internal/v1", "allow_plaintext": True}, "none"),
        ({"kind": "openai", "url": "http://127.0.0.1.example.com/v1", "allow_plaintext": True}, "none"),
        ({"kind": "triton", "url": "localhost:8001"}, "loopback"),
        ({"kind": "triton", "url": "triton:8001"}, "none"),
        ({"kind": "in-process"}, "loopback"),
    ],
)
def test_a_waybill_claims_no_protection_that_the_address_does_not_show(config, encryption):
    """`tls` is said of https, `loopback` of this machine, and `none` of everything else."""
    assert EndpointConfig.model_validate(config).described("e").encryption == encryption


def test_a_key_comes_from_one_place_and_is_never_shown(monkeypatch, tmp_path):
    """A key is read from its file; two places for one are an error, and no text of the settings shows it."""
    file = tmp_path / "key"
    file.write_text(f"{MARK}\n")
    monkeypatch.setenv("WAYBILL_ENDPOINTS__HOSTED__KIND", "openai")
    monkeypatch.setenv("WAYBILL_ENDPOINTS__HOSTED__URL", "https://x.example/v1")
    monkeypatch.setenv("WAYBILL_ENDPOINTS__HOSTED__KEY_FILE", str(file))
    settings = load()
    assert settings.endpoints["hosted"].secret().get_secret_value() == MARK
    assert MARK not in repr(settings)
    monkeypatch.setenv("WAYBILL_ENDPOINTS__HOSTED__KEY", MARK)
    with pytest.raises(ConfigError, match="not both"):
        load()


@pytest.mark.parametrize("content", [None, " \n"])
def test_a_key_file_that_holds_no_key_is_named(tmp_path, content):
    """A missing or empty key file is an error that names the file."""
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match="key file"):
        EndpointConfig(kind="openai", url="https://x.example/v1", key_file=file).secret()


def test_sasl_needs_user_and_password(tmp_path):
    """A security protocol with SASL without both is an error; with both the password stays hidden."""
    with pytest.raises(ConfigError, match="WAYBILL_KAFKA_USER"):
        load(kafka_security="SASL_SSL", kafka_user="u").kafka_settings()
    with pytest.raises(ConfigError, match="cannot read"):
        load(kafka_password_file=Path("/nowhere")).kafka_settings()
    file = tmp_path / "password"
    file.write_text(MARK)
    made = load(kafka_security="SASL_SSL", kafka_user="u", kafka_password_file=file).kafka_settings()
    assert made.sasl_password == MARK
    assert MARK not in repr(made)


def test_a_child_inherits_what_we_have(monkeypatch):
    """A program that is started gets the environment with the changes."""
    monkeypatch.setenv("WAYBILL_SITE", "there")
    assert child_environment(EXTRA="1").items() >= {"WAYBILL_SITE": "there", "EXTRA": "1"}.items()
