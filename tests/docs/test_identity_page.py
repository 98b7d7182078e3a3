"""The page on identity says what the code does: its codes, its claims, its numbers, its commands."""

from __future__ import annotations

import ast
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inference import exchange
from inference.callers import CredentialConfig
from inference.standin.__main__ import _arguments
from policy.identity.jws import SigningKey, unchecked
from policy.identity.verify import ClaimNames
from policy.identity.workload import LIFETIME_S, MAX_LIFETIME_S, Crossing, Minter
from streams.keys import IdentityConfig
from waybill.cli.identity import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")


def named(heading: str) -> set[str]:
    """Give what stands in backticks in the first column of the table under a heading."""
    text = PAGE.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", text, flags=re.MULTILINE)
    assert cells, heading
    return {name for cell in cells for name in re.findall(r"`([^`]*)`", cell)} - {"claim", "code", "auth"}


def test_every_code_is_told_and_no_other() -> None:
    """The codes of the page are those that checking a token raises."""
    thrown = set()
    for module in ("verify", "jws", "jwks", "jose"):
        for node in ast.walk(ast.parse((ROOT / "policy" / "identity" / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "RecordError":
                code = node.args[0]
                assert isinstance(code, ast.Constant)
                thrown.add(code.value)
    assert named("### Codes") == thrown


def test_claims_of_a_request_are_told() -> None:
    """The names of claims that are read by default are those of the page."""
    defaults = ClaimNames()
    own = {defaults.tenant, defaults.kind, defaults.roles, defaults.subject}
    assert named("### What a token has to say") - {"user", "service"} == own | {
        "iss",
        "aud",
        "sub",
        "exp",
        "iat",
        "nbf",
    }


def test_claims_of_a_minted_token_are_told() -> None:
    """A minted token has the claims of the page and no other, and its workload is named as there."""
    minter = Minter(SigningKey.generate(), trust_domain="example.org")
    crossing = Crossing("c", "r", "a", "t", "p", "w", "paris-1", datetime.now(UTC))
    claims = unchecked(minter.mint(crossing).token.get_secret_value()).claims
    assert set(claims) == named("### A minted token")
    assert f"`{claims['sub']}`" in PAGE


def test_ways_of_telling_who_calls_are_told() -> None:
    """The values of `auth` are those of the page."""
    literal = CredentialConfig.model_fields["auth"].annotation
    assert named("## Who calls") == set(literal.__args__)


def test_numbers_are_those_of_the_code() -> None:
    """Lifetimes, leeway and ages that the page gives in words are the defaults."""
    fields = IdentityConfig.model_fields
    assert [fields[name].default for name in ("max_token_hours", "leeway_seconds", "max_key_hours")] == [24, 30, 24]
    assert fields["refresh_seconds"].default == 300
    assert (LIFETIME_S, MAX_LIFETIME_S) == (120, 600)
    assert (exchange._MARGIN, exchange._KEPT_S, exchange.MAX_LIFETIME_S) == (0.2, 300, 3600)


def test_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of the examples runs, in order, and the token that it made holds; the stand-in knows its flags."""
    monkeypatch.chdir(tmp_path)
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL) for line in block.splitlines()]
    assert len(lines) == 7
    told = ""
    for line in lines:
        words = shlex.split(line)
        target = Path(words.pop()) if ">" in words else None
        if words[:3] == ["python", "-m", "inference.standin"]:
            assert _arguments(words[3:]).jwks.exists()
            continue
        arguments = [word for word in words[2:] if word != ">"]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False)
        assert done.exit_code == 0
        told += done.stdout
        if target is not None:
            target.write_text(done.stdout, encoding="utf-8")
    assert "holds" in told
