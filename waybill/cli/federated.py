"""What commands share that ask several sites: the options, who could be asked, and how the answer says so."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from evidence.errors import ConfigError, UnavailableError
from evidence.visible import safe_json
from queries.terminal import data
from waybill.cli.options import out, tell

if TYPE_CHECKING:
    from policy.labels import Labels
    from policy.sites import Sites
    from queries.database import Evidence
    from queries.federated import SiteState
    from queries.render import Format
    from waybill.settings import Settings

DEFAULT: Final = Path("config/sites.yaml")
"""Where the sites are described unless told otherwise."""

_SHOWN: Final = 8
"""Columns that a sentence names; JSON and CSV name all."""

Federated = Annotated[bool, typer.Option("--federated", help="Ask the copies of the other sites too.")]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="With --federated: fail where a site or a column is missing, or a copy is too old."),
]
SitesFile = Annotated[
    Path | None, typer.Option("--sites", metavar="FILE", help=f"The sites (default: {DEFAULT.as_posix()}).")
]


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom a question goes to."""

    federated: bool
    """Whether the other sites are asked too."""
    strict: bool
    """Whether a site that is missing or too old is an error."""
    file: Path | None
    """The sites."""

    def check(self) -> None:
        """See that the flags belong together.

        Raises:
            ConfigError: they do not.
        """
        if not self.federated and (self.strict or self.file is not None):
            raise ConfigError("--strict and --sites say how other sites are asked: add --federated")


@dataclass(frozen=True, slots=True)
class Asked:
    """Evidence that is open, and what became of each site."""

    evidence: Evidence
    """To be asked."""
    states: tuple[SiteState, ...] = ()
    """The sites; none where only this one's own evidence is asked."""

    strict: bool = False
    """Whether an answer with a hole is an error."""

    def answer(self, sql: str, values: Mapping[str, Any] | None, timeout_s: float, form: Format, rows: int) -> None:
        """Ask, and write an answer that says of which sites it is, and what is missing of them.

        JSON is an object with the members `sites` and `rows`; CSV begins with a comment for each site that is missing
        or too old, or of which a column is, so that an answer with a hole does not pass for a whole one.

        Raises:
            QueryError: the statement cannot be answered.
            UnavailableError: something is missing, and that is to be an error.
        """
        from queries.render import render  # noqa: PLC0415 - `--help` needs none of it

        holes = self.holes(sql)
        result = self.evidence.query(sql, values, timeout_s)
        if not self.states:
            render(result, form, out, max_rows=rows)
            return
        if form == "csv":
            told = [
                f"# site {state.name} {state.condition}: {one_line(state.why)}\n"
                for state in self.states
                if state.condition not in ("ok", "closed")
            ]
            told += [f"# site {name} does not grant: {', '.join(paths)}\n" for name, paths in holes.items()]
            data(out, iter(told), what="CSV")
        if form == "json":
            sites = safe_json(json.dumps(self.described(holes)))
            data(out, iter([f'{{"sites": {sites},\n "rows": ']), what="JSON")
        render(result, form, out, max_rows=rows)
        if form == "json":
            data(out, iter(["}\n"]), what="JSON")

    def described(self, holes: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
        """Return what became of each site in JSON's own types."""
        return [described(state, holes.get(state.name, ())) for state in self.states]

    def holes(self, sql: str) -> dict[str, tuple[str, ...]]:
        """Tell of what the sites do not grant and the statement needs, and return it."""
        from queries.federated import FederatedEvidence  # noqa: PLC0415 - `--help` needs none of it

        holes = self.evidence.withheld(sql) if isinstance(self.evidence, FederatedEvidence) else {}
        for name, paths in holes.items():
            more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
            tell(f"waybill: site {name} does not grant {', '.join(paths[:_SHOWN])}{more}: null in its rows")
        if holes and self.strict:
            raise UnavailableError(f"no answer without columns that {', '.join(holes)} does not grant (--strict)")
        return holes


@contextmanager
def asked(settings: Settings, reach: Reach) -> Iterator[Asked]:
    """Open the evidence that a question goes to, and tell of sites that are missing or too old.

    Raises:
        ConfigError: the flags do not belong together, the sites are wrong, or nothing was ever stored here.
        UnavailableError: a site is missing or too old, and that is to be an error.
        OtherSite: a site's file holds rows of another site.
    """
    reach.check()
    from evidence.files.places import open_files  # noqa: PLC0415 - `--help` needs none of it
    from queries.database import Evidence  # noqa: PLC0415 - the same
    from queries.federated import FederatedEvidence, Remote, SiteState  # noqa: PLC0415 - the same
    from waybill.cli.stores import check_there  # noqa: PLC0415 - the same

    if not reach.federated:
        files = settings.evidence_files()
        check_there(files)
        with Evidence(files) as evidence:
            yield Asked(evidence)
        return
    sites = read_sites(reach.file or settings.sites, None)
    sites.site(settings.site)
    remotes = [
        Remote(
            site.name,
            site.key or "",
            partial(open_files, where, settings.evidence_s3.access()),
            site.max_age_s,
            frozenset(sites.grant(site.name, settings.site).config.columns) if site.leaves else None,
        )
        for site, where in sites.copies_for(settings.site)
    ]
    cache = settings.home / "federated"
    with FederatedEvidence(
        settings.evidence_files(), settings.site, remotes, cache=cache, timeout_s=settings.site_seconds
    ) as federated:
        closed = [
            SiteState(site.name, "closed", f"nothing may leave it for {settings.site}")
            for site in sites.closed_to(settings.site)
        ]
        states = (*federated.states, *closed)
        for state in states:
            if state.condition == "ok":
                continue
            left_out = "" if state.used else " (not in the answer)"
            tell(f"waybill: site {state.name} is {state.condition}{left_out}: {one_line(state.why)}")
        missing = [state for state in federated.states if state.condition != "ok"]
        if missing and reach.strict:
            raise UnavailableError(f"no answer without {', '.join(state.name for state in missing)} (--strict)")
        yield Asked(federated, states, reach.strict)


def read_sites(file: Path, labels: Labels | None) -> Sites:
    """Read the file of the sites.

    Raises:
        ConfigError: it is wrong.
    """
    from evidence.federation.columns import FIELDS, REQUIRED  # noqa: PLC0415 - `--help` needs none of it
    from policy.sites import Columns, load  # noqa: PLC0415 - the same

    return load(file, Columns(FIELDS, REQUIRED), labels)


def described(state: SiteState, withheld: Sequence[str] = ()) -> dict[str, Any]:
    """Return what became of a site in JSON's own types; `withheld` is what the answer needs and it does not grant."""
    newest = None if state.newest is None else state.newest.astimezone(UTC).isoformat().replace("+00:00", "Z")
    told: dict[str, Any] = {"site": state.name, "condition": state.condition, "why": one_line(state.why) or None}
    told |= {"newest": newest, "notGranted": list(withheld) or None}
    return {name: value for name, value in told.items() if value is not None}


def one_line(text: str) -> str:
    """Give a text in one line; a file's name may hold anything."""
    return " ".join(text.split())
