"""`waybill erase`: what the vault keeps about a person, and what is under way about them, ends; evidence says so."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from evidence.errors import ConfigError, RecordError
from waybill.cli.interrupts import listen
from waybill.cli.options import By, Home, Kafka, out, resolve, tell
from waybill.cli.retention import Reason, carry_out, hold_book, masked, opened, rules_of, who

if TYPE_CHECKING:
    from policy.vault.erasure import Erasure, Erasures, Verdict
    from waybill.settings import Settings


def erase(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The person: a reference, as requests have it.")],
    reason: Reason,
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant", metavar="ID", help="Of which tenant: where several know the person, or none does yet."
        ),
    ] = None,
    by: By = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,  # noqa: FBT002 - a flag
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Destroy the keys of everything that the vault keeps about a person: requests, answers, originals of pseudonyms.

    Requests of the person in progress end; later requests need new consent. Evidence records that erasure was asked
    for, and then what was erased; its own rows and hashes stay. What is under legal hold or below its minimum is named
    and kept for now; `waybill retention run` erases it later. It is safe to interrupt this and run it again.

    Example: `waybill erase person:7 --tenant acme --reason "asked by letter of 2026-11-20"`
    """
    settings = resolve(home=home, kafka=kafka)
    from policy.vault.erasure import Erasure, Erasures  # noqa: PLC0415 - `--help` needs none of it
    from policy.vault.files import Files, locked, make_folder  # noqa: PLC0415 - the same

    actor, why, now = who(by), masked(reason), datetime.now(UTC)
    vault, store = opened(settings)
    erasures, holds, rules = Erasures(store), hold_book(settings).active, rules_of(settings)
    of = _tenant(erasures, subject, tenant)
    verdict = erasures.look(of, subject, now=now, holds=holds, rules=rules)
    if dry_run:
        _print(verdict, subject)
        return
    begun = (of, subject) in erasures.people()
    listen()
    make_folder(Files(), vault.ring.folder)  # before the first request was admitted there is none
    with locked(vault.ring.folder / "retention.lock"):
        # Where nothing is kept, something may be under way: also since an erasure that waits, or is not told yet.
        going_on = erasures.again(of, subject, now) if begun and not verdict.found else None
        asked = going_on or erasures.ask(Erasure(uuid4().hex, of, subject, why, actor, now))
        erased = carry_out(settings, store, now)
        left = erasures.look(of, subject, now=now, holds=holds, rules=rules)
        if left.refused:
            _refuse(settings, asked, left, actor)
    payloads = f"{erased} payload{'' if erased == 1 else 's'}"
    kept = f"Erased {payloads} of {subject}." if erased else f"Nothing was kept about {subject} of {of}."
    out.print(f'{kept} Requests in progress will end as "erased"; recorded in evidence.', soft_wrap=True)


def _tenant(erasures: Erasures, subject: str, tenant: str | None) -> str:
    """Give the tenant whose person is meant."""
    known = erasures.tenants(subject)
    if tenant is not None:
        return tenant
    if not known:
        bare = subject.partition(":")[2] if subject.startswith(("user:", "service:")) else ""
        if bare and erasures.tenants(bare):
            raise RecordError(
                "nothing_kept",
                f"the vault keeps nothing about {subject}; did you mean {bare}? Requests name a person without the "
                f"{subject.partition(':')[0]}: that evidence puts before it",
            )
        raise RecordError(
            "nothing_kept",
            f"the vault keeps nothing about {subject}, so there is nothing to erase; to end requests that are under "
            "way, say of which tenant with --tenant",
        )
    if len(known) > 1:
        raise ConfigError(f"{len(known)} tenants know {subject}: choose with --tenant {', '.join(known)}")
    return known[0]


def _refuse(settings: Settings, erasure: Erasure, verdict: Verdict, actor: str) -> None:
    """Tell that something stays, and end with what forbids it."""
    from evidence.records import EventType  # noqa: PLC0415 - `--help` needs none of it
    from policy.vault.erasure import refused  # noqa: PLC0415 - the same
    from streams.operator import Deed  # noqa: PLC0415 - the same
    from streams.operator import tell as say  # noqa: PLC0415 - the same

    about = {"tenant_ref": erasure.tenant, "subject_ref": erasure.subject, "detail": refused(erasure, verdict)}
    deed = Deed(EventType.ERASURE_REFUSED, f"erasure:{erasure.id}", actor, about)
    asyncio.run(say(settings.kafka_settings(), (deed,), site=settings.site, now=datetime.now(UTC)))
    raise RecordError(
        "erasure_refused", f"{_why(verdict, erasure.subject)}; `waybill retention run` erases it once that has ended"
    )


def _why(verdict: Verdict, subject: str) -> str:
    from policy.holds import scopes  # noqa: PLC0415 - `--help` needs none of it

    if verdict.held:
        return f"nothing about {subject} is erased, because of the legal hold {scopes(verdict.held)}"
    rules = "; ".join(
        f"{each.objects} of class {each.data_class} for {each.purpose} until {each.until:%Y-%m-%d}"
        for each in verdict.waits
    )
    return f"{verdict.found - len(verdict.goes)} payloads about {subject} have to be kept for now: {rules}"


def _print(verdict: Verdict, subject: str) -> None:
    out.print(f"would erase {len(verdict.goes)} of {verdict.found} payloads about {subject}", soft_wrap=True)
    if verdict.refused:
        out.print(_why(verdict, subject), soft_wrap=True)
    tell("waybill: nothing was changed (--dry-run)")
