"""Policy: microseconds of a decision that is new and of one that is remembered, of redaction, vault and tokens."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bench.detection import SIZE, texts
from bench.requests import token
from bench.rig import ISSUER, ROOT
from inference import rulebook
from inference.routes import Endpoint
from inference.rulebook import Rulebook
from policy.detection.detectors import Detectors
from policy.engine import Held
from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey, public_set
from policy.identity.verify import Verifier
from policy.identity.workload import Crossing, Minter
from policy.labels import Label
from policy.questions import Facts, Style
from policy.vault.sealing import Vault
from policy.view import Redactor
from streams.processors import routing
from streams.processors.cases import Case, Wish
from streams.processors.settled import settle

_ROUNDS: Final = 400
_BATCH: Final = 50
"""Calls of one measurement, where a call is shorter than the clock is exact."""

_ENDPOINTS: Final = {
    "hosted": Endpoint(name="hosted", provider="stand-in", encryption="loopback"),
    "local": Endpoint(name="local", provider="in-process", encryption="loopback"),
}


async def measure() -> dict[str, Any]:
    """Measure with the sample deployment's rulebook, in this process, without a broker."""
    book = rulebook.load(ROOT / "config" / "policy", ROOT / "config" / "routes.yaml", _ENDPOINTS)
    return {**_decisions(book), **_redaction(), **_vault(), **_tokens()}


def _case(purpose: str = "product-research", kinds: frozenset[str] = frozenset()) -> Case:
    facts = Facts(
        actor="user-1",
        kind="user",
        tenant="acme",
        roles=frozenset({"staff"}),
        identity="jwt",
        action="model-call",
        purpose=purpose,
        task="question",
        risk=0,
        basis="contract",
        consent="none",
    )
    return Case(facts, Wish(max_tokens=256, size=SIZE, turns=2), Held(Label("public"), kinds))


def _decisions(book: Rulebook) -> dict[str, Any]:
    plain, personal = _case(), _case("customer-support", frozenset({"email"}))
    route = book.facts["hosted-general"]
    engine = book.engine

    def forget() -> None:
        engine._memory.clear()  # noqa: SLF001 - a decision that nobody has asked for before is what is measured

    return {
        "engine, us, hit": _many_us(lambda: engine.decide(plain.facts, plain.held, route)),
        "engine, us, miss, allowed as it is": _once_us(lambda: engine.decide(plain.facts, plain.held, route), forget),
        "engine, us, miss, allowed when redacted": _once_us(
            lambda: engine.decide(personal.facts, personal.held, route), forget
        ),
        "all routes, us, hit": _many_us(lambda: routing.decide(plain, book)),
        "all routes, us, miss": _once_us(lambda: routing.decide(plain, book), forget),
        "all routes, us, settled": _many_us(lambda: settle(plain, book)),
    }


def _redaction() -> dict[str, Any]:
    detectors, found = Detectors(), dict[str, Any]()
    for name, text in texts().items():
        findings = detectors.scan(text)
        for style in Style if findings else ():
            styles = dict.fromkeys(("personal", "financial"), style)
            taken_out = _many_us(lambda t=text, f=findings, s=styles: Redactor(s, b"k" * 32).take_out(t, f))
            found[f"redaction, us, {name}, {style}"] = taken_out
    return found


def _vault() -> dict[str, Any]:
    text, now = next(iter(texts().values())).encode(), datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="waybill-bench-vault-") as folder:
        vault = Vault(Path(folder))
        vault.prepare()
        sealed = vault.seal("acme", text, now=now, bound_to=b"intake")
        return {
            "sealing, us": _many_us(lambda: vault.seal("acme", text, now=now, bound_to=b"intake")),
            "opening, us": _many_us(lambda: vault.open(sealed, tenant="acme", bound_to=b"intake")),
        }


def _tokens() -> dict[str, Any]:
    key, now = SigningKey.generate(), datetime.now(UTC)
    verifier = Verifier(KeySet.parse(public_set(key), "bench"), issuer=ISSUER, audience="waybill")
    shown = token(key, 0, now).decode().removeprefix("Bearer ")
    minter = Minter(key, trust_domain="example.org")
    crossing = Crossing(
        call_id="bench",
        route="hosted-general",
        audience="https://api.example.com",
        tenant="acme",
        actor_ref="user-1",
        waybill_hash="ab" * 32,
        site="bench",
        now=now,
    )

    def forget() -> None:
        verifier._known.clear()  # noqa: SLF001 - a token that was never seen is what is measured

    return {
        "token, us, seen before": _many_us(lambda: verifier.verify(shown, now)),
        "token, us, never seen": _once_us(lambda: verifier.verify(shown, now), forget),
        "token, us, minted": _once_us(lambda: minter.mint(crossing), lambda: None),
    }


def _many_us(work: Callable[[], object]) -> float:
    """Give the median of a call, in microseconds, of calls one after the other."""
    spent = []
    for _ in range(_ROUNDS):
        began = time.perf_counter_ns()
        for _ in range(_BATCH):
            work()
        spent.append((time.perf_counter_ns() - began) / _BATCH)
    return round(sorted(spent)[_ROUNDS // 2] / 1000, 2)


def _once_us(work: Callable[[], object], before: Callable[[], None]) -> float:
    """Give the median of a call, in microseconds, with something done before each that is not counted."""
    spent = []
    for _ in range(_ROUNDS):
        before()
        began = time.perf_counter_ns()
        work()
        spent.append(time.perf_counter_ns() - began)
    return round(sorted(spent)[_ROUNDS // 2] / 1000, 1)
