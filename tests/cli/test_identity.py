"""`waybill identity`: keys, their public set, and tokens for trying out."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evidence.errors import ConfigError
from inference.credentials import load_signing_key
from policy.identity.jwks import KeySet
from policy.identity.verify import Verifier
from waybill.cli.identity import app

ISSUER = "https://id.example.org"


def run(*arguments: object) -> str:
    """Run a command and give what it prints; an error of ours is raised."""
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False, standalone_mode=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A private key that the program made."""
    path = tmp_path / "signing.pem"
    run("keygen", path)
    return path


def token(key: Path, *more: str) -> str:
    """A token that the program made."""
    return run("token", key, "--sub", "ada", "--tenant", "acme", "--issuer", ISSUER, *more).strip()


def test_key_is_its_owners_alone(key: Path) -> None:
    """`keygen` makes a file of mode 0600 that loads, and never writes over one."""
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(ConfigError, match="never written over"):
        run("keygen", key)
    assert key.read_bytes() == before
    with pytest.raises(ConfigError, match="cannot write"):
        run("keygen", key / "inside")


def test_public_set_has_no_private_part(key: Path, tmp_path: Path) -> None:
    """`jwks` prints a set that admission takes, one key for each file, in the order of the files."""
    run("keygen", tmp_path / "next.pem")
    text = run("jwks", key, tmp_path / "next.pem")
    found = KeySet.parse(text, "jwks.json")
    assert [each.kid for each in found.keys] == [load_signing_key(each).kid for each in (key, tmp_path / "next.pem")]
    assert '"d"' not in text


def test_same_key_twice_is_published_once(key: Path) -> None:
    """A key that is given twice stands once in the set."""
    assert run("jwks", key, key) == run("jwks", key)


def test_token_is_what_admission_takes(key: Path) -> None:
    """`token` makes one line that a verifier with the printed set takes, and it lives as long as asked."""
    text = token(key, "--role", "analyst", "--role", "auditor", "--ttl", "2m", "--kind", "service", "--subject", "bob")
    verifier = Verifier(KeySet.parse(run("jwks", key), "x"), issuer=ISSUER, audience="waybill")
    now = datetime.now(UTC)
    found = verifier.verify(text, now)
    assert (found.actor_id, found.tenant, found.actor_kind, found.subject) == ("ada", "acme", "service", "bob")
    assert found.roles == {"analyst", "auditor"}
    assert found.expires_at is not None
    assert 115 < (found.expires_at - now).total_seconds() <= 120


@pytest.mark.parametrize("ttl", ["", "0", "5d", "-1s", "soon", "1m30s"])
def test_time_that_is_none_is_refused(key: Path, ttl: str) -> None:
    """A lifetime that cannot be read is an error that shows the forms."""
    with pytest.raises(ConfigError, match="write 90s, 15m or 12h"):
        token(key, f"--ttl={ttl}")


def test_token_is_shown_without_its_signature(key: Path, tmp_path: Path) -> None:
    """`show` prints header and claims, times in words, and no part of the token itself."""
    text = token(key, "--role", "[red]analyst")
    (tmp_path / "token.jwt").write_text(f"Bearer {text}\n")
    told = run("show", tmp_path / "token.jwt")
    assert "ada" in told
    assert "ES256" in told
    assert "[red]analyst" in told
    assert f"{datetime.now(UTC):%Y-%m-%d}" in told
    assert "not checked" in told
    assert not any(part in told for part in text.split("."))


def test_signature_is_checked_where_keys_are_given(key: Path, tmp_path: Path) -> None:
    """`show --jwks` says that the signature holds, or ends with 1 and says that it does not."""
    (tmp_path / "token.jwt").write_text(token(key))
    (tmp_path / "jwks.json").write_text(run("jwks", key))
    assert "holds" in run("show", tmp_path / "token.jwt", "--jwks", tmp_path / "jwks.json")
    run("keygen", tmp_path / "other.pem")
    (tmp_path / "jwks.json").write_text(run("jwks", tmp_path / "other.pem"))
    done = CliRunner().invoke(
        app,
        ["show", str(tmp_path / "token.jwt"), "--jwks", str(tmp_path / "jwks.json")],
        catch_exceptions=False,
        standalone_mode=False,
    )
    assert done.return_value == 1
    assert "not in the key set" in done.stdout


def test_file_that_holds_no_token_is_refused(tmp_path: Path) -> None:
    """What is no token, too long, or not there, is an error that quotes nothing of the file."""
    path = tmp_path / "token.jwt"
    for text in ("hunter2", "hunter2.hunter2.hunter2", "hunter2" * 2000):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"token\.jwt") as caught:
            run("show", path)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read"):
        run("show", tmp_path / "gone.jwt")
