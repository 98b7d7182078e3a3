"""`waybill decide`: what would become of a request, and why; nothing is sent."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer
from rich.table import Table

from evidence.errors import ConfigError
from queries.terminal import Text
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, out, resolve, tell, write_json

if TYPE_CHECKING:
    from inference.rulebook import Rulebook
    from streams.processors.cases import Case
    from streams.processors.classification import Classified
    from streams.processors.routing import Decision
    from streams.request import RuntimeRequest

_COLOURS = {"allow": "green", "transform": "cyan", "require-approval": "yellow", "escalate": "magenta", "deny": "red"}


def decide(
    request: Annotated[Path, typer.Option("--request", metavar="FILE", help="The request as JSON; - reads it here.")],
    policy: Annotated[
        Path | None, typer.Option("--policy", metavar="DIR", help="Decide by these policies, not by those in force.")
    ] = None,
    consent: Annotated[
        Literal["none", "granted", "withdrawn", "unknown"],
        typer.Option("--consent", help="What the register would say; it is not asked."),
    ] = "none",
    role: Annotated[list[str] | None, typer.Option("--role", help="A role of the actor; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the decision as JSON.")] = False,  # noqa: FBT002 - a flag
    routes: Annotated[Path | None, typer.Option(metavar="FILE", help="The route table.")] = None,
    home: Home = None,
) -> int:
    """Explain what would become of a request: its labels, every route with its reasons, what would be taken out.

    Nothing is sent and no broker is asked. Names of people are not looked for here. Exit code 1 where it is denied.

    Example: `waybill decide --request request.json --policy review/policy`
    """
    settings = resolve(home=home, routes=routes)
    listen()
    from policy.detection.detectors import Detectors  # noqa: PLC0415 - `--help` needs none of it
    from policy.identity.verify import unsigned  # noqa: PLC0415 - the same
    from streams.processors import routing  # noqa: PLC0415 - the same
    from streams.processors.classification import classify  # noqa: PLC0415 - the same
    from streams.request import parse  # noqa: PLC0415 - the same
    from streams.stages.admitted import case_of  # noqa: PLC0415 - the same
    from waybill.offline import book_of  # noqa: PLC0415 - the same
    from waybill.policy_edits import edited  # noqa: PLC0415 - the same

    book = book_of(settings, policy)
    if policy is None and (said := edited(settings)) is not None:
        tell(f"waybill: {said}")
    asked = parse(_read(request))
    book.labels.check_request(
        asked.classification, asked.purpose, asked.task_type, asked.data_categories, asked.data_regulations
    )
    classified = classify(asked, book.labels, Detectors())
    principal = unsigned(asked.actor.id, asked.actor.kind, asked.tenant.id)
    case = case_of(asked, principal, classified, consent, frozenset(role or ()))
    decision = routing.decide(case, book)
    if as_json:
        write_json(_json(decision, case, classified, book))
    else:
        _explain(asked, decision, case, classified, book)
    return 0 if decision.routes else 1


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the request {path}: {error.strerror}") from error


def _json(decision: Decision, case: Case, classified: Classified, book: Rulebook) -> dict[str, Any]:
    from streams.processors.routing import policy_ref  # noqa: PLC0415 - `--help` needs none of it

    said = policy_ref(decision, case, book, identity="not-recorded").model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    said["inputs"] = orjson.loads(said["inputs"])
    return {
        "decision": said,
        "classification": classified.classification.model_dump(mode="json", by_alias=True, exclude_none=True),
        "routes": [route.name for route in decision.routes],
        "at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _explain(asked: RuntimeRequest, decision: Decision, case: Case, classified: Classified, book: Rulebook) -> None:
    from waybill.offline import explain  # noqa: PLC0415 - `--help` needs none of it

    held = classified.classification
    found = f", found {', '.join(held.findings)}" if held.findings else ""
    out.print(f"data      declared {held.declared}{found}: held to be {held.effective}")
    if held.regulations:
        out.print(f"falls under {', '.join(held.regulations)}")
    out.print(f"rulebook  {book.version}, policy {book.policy_digest}", soft_wrap=True)
    table = Table("route", "answer", "because", "on what")
    for one in explain(case, book):
        if one.verdict is None:
            table.add_row(one.route.name, Text("deny", "red"), f"{one.objection} (the route table)", "")
            continue
        verdict = one.verdict
        rests = [f"without {category} ({style})" for category, style in verdict.styles]
        rests += [f"with approval of {name}" for name in verdict.authorities]
        if one.selection and one.selection.left:
            rests += [
                f"without source {asked.input.context[place].source_id} ({why})" for place, why in one.selection.left
            ]
        outcome = Text(verdict.outcome, _COLOURS[verdict.outcome])
        table.add_row(one.route.name, outcome, ", ".join(_where(verdict.reasons, book)), ", ".join(rests))
    out.print(table)
    chosen = decision.routes[0].name if decision.routes else None
    rest = [route.name for route in decision.routes[1:]]
    if chosen is None:
        out.print("no route may serve it: it would be denied")
    elif decision.waits:
        out.print(f"it would wait for a person, and then go to {chosen}")
    else:
        out.print(f"it would go to {chosen}" + (f", else to {', '.join(rest)}" if rest else ""))


def _where(reasons: tuple[str, ...], book: Rulebook) -> list[str]:
    """Give reasons with the place of the policy behind each."""
    places = {rule.id: rule.where for rule in book.engine.policies.rules.values()}
    return [f"{reason} ({places[reason]})" if reason in places else reason for reason in reasons]
