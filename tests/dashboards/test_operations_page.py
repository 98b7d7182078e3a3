"""The operator's page names commands, settings and files that exist."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from warm_start import run_program

from streams.keys import IdentityConfig
from waybill.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"(?:^ {4}(?:docker compose exec worker )?|`)(waybill [a-z][^#`\n]*)", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("command", sorted({" ".join(command.split()) for command in COMMANDS}))
def test_commands_exist_with_their_options(command: str) -> None:
    """Each command of the page is one of the program's, and so is each of its options."""
    words = [word for word in command.split()[1:] if re.fullmatch(r"[a-z-]+", word) and not word.startswith("--")]
    done = run_program("waybill", *words, "--help", env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    for option in re.findall(r"--[a-z-]+", command):
        assert option in done.stdout


def test_settings_exist() -> None:
    """Each setting that the page names is one."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{PREFIX}IDENTITY__{name.upper()}" for name in IdentityConfig.model_fields}
    for name in re.findall(r"WAYBILL_[A-Z_]+", PAGE):
        assert name in known or name.startswith("WAYBILL_ENDPOINTS__"), name


def test_files_exist() -> None:
    """Each file and folder of the project that the page names is there."""
    for path in re.findall(r"`((?:dashboards|config|docs)/[\w./-]+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_every_alert_is_explained_and_no_other() -> None:
    """The headings under Alerts are the alerts, in both directions."""
    section = PAGE.partition("## Alerts\n")[2].partition("\n## ")[0]
    rules = yaml.safe_load((ROOT / "dashboards" / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    assert re.findall(r"^### (\w+)$", section, flags=re.MULTILINE) == [rule["alert"] for rule in rules]


def test_services_exist() -> None:
    """Each service that a compose command of the page names is in docker-compose.yml, and so is each address."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    for name in re.findall(r"docker compose (?:exec|stop|logs --follow|run .*kafka-storage.sh) (\w+)", PAGE):
        assert name in compose["services"]
    published = {port.rpartition(":")[0] for each in compose["services"].values() for port in each.get("ports", ())}
    table = PAGE.partition("| where | what |")[2].partition("\n\n")[0]
    assert set(re.findall(r"127\.0\.0\.1:\d+", table)) == published
