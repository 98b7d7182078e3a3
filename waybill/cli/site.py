"""`waybill site`: which workers run, and which vault is the site's."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from evidence.errors import ConfigError
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Kafka, out, resolve, tell, write_json

if TYPE_CHECKING:
    from waybill.settings import Settings

app = typer.Typer(help="The workers of a site, and the vault that they share.", no_args_is_help=True)


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,  # noqa: FBT002 - a flag
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Show the workers that run, what each is set up with, and which vault is the site's.

    Example: `waybill site show`
    """
    settings = resolve(home=home, kafka=kafka)
    from streams.registry import roster_of  # noqa: PLC0415 - `--help` needs none of it
    from streams.workers import stamp  # noqa: PLC0415 - the same

    listen()
    roster, now = asyncio.run(roster_of(settings.kafka_settings()))
    alive, claim = roster.alive(now), roster.vault
    if as_json:
        workers = [{**seen.worker.model_dump(mode="json", by_alias=True), "heard": stamp(seen.heard)} for seen in alive]
        vault = None if claim is None else {**claim.vault.model_dump(by_alias=True), "registered": stamp(claim.written)}
        content = {"vault": vault, "workers": workers}
        write_json(content)
        return
    if claim is None:
        tell("waybill: no worker has registered a vault yet")
    else:
        place = f"{claim.vault.host}:{claim.vault.pid}"
        out.print(f"vault {claim.vault.vault[:12]}, registered by {place} at {stamp(claim.written)}")
    table = Table("worker", "since", "state", "site", "vault", "store", "key", "identity", "hosted", "version")
    for seen in alive:
        facts = seen.worker.facts
        values = (facts.site, facts.vault, facts.store, facts.keys[-1] if facts.keys else None)
        table.add_row(
            seen.worker.place,
            stamp(seen.worker.started),
            "running" if seen.worker.running else "starting",
            *((value or "-")[:12] for value in values),
            facts.identity or "-",
            facts.hosted or "-",
            seen.worker.version or "-",
        )
    out.print(table)


@app.command()
def adopt(
    yes: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--yes", help="Do it: what another vault sealed on the topics can never be opened.")
    ] = False,
    home: Home = None,
    kafka: Kafka = None,
) -> None:
    """Make the vault of this machine's settings the site's, in the place of one that is gone for good.

    Work that lies on the topics, sealed under the vault of before, ends as failed. Refused while workers run.

    Example: `waybill site adopt --yes`
    """
    settings = resolve(home=home, kafka=kafka)
    listen()
    tell(f"waybill: {asyncio.run(_adopt(settings, yes=yes))}")


async def _adopt(settings: Settings, *, yes: bool) -> str:
    from streams.registry import adopt, roster_of  # noqa: PLC0415 - `--help` needs none of it
    from streams.workers import SiteVault, stamp  # noqa: PLC0415 - the same
    from waybill.site import host_name, vault_id  # noqa: PLC0415 - the same

    kafka = settings.kafka_settings()
    roster, now = await roster_of(kafka)
    ours, claim = await asyncio.to_thread(vault_id, settings), roster.vault
    if claim is not None and claim.vault.vault == ours:
        return f"vault {ours[:12]} in {settings.vault_folder} is the site's already"
    if alive := roster.alive(now):
        raise ConfigError(f"stop all workers first: {', '.join(seen.worker.place for seen in alive)} run")
    if claim is not None and not yes:
        raise ConfigError(
            f"the site's vault is {claim.vault.vault[:12]}, registered at {stamp(claim.written)}; what it sealed on "
            f"the topics can never be opened with {ours[:12]} in {settings.vault_folder}: give --yes to go on"
        )
    fresh = f"{datetime.now(UTC):%Y%m%d%H%M%S}{os.getpid()}"
    await adopt(kafka, tuple(roster.claims.values()), SiteVault(vault=ours, host=host_name(), pid=os.getpid()), fresh)
    return f"vault {ours[:12]} in {settings.vault_folder} is the site's now"
