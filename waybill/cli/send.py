"""`waybill send`: requests of a file or of standard input, onto the topic, and their answers back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from evidence.errors import ConfigError
from waybill.cli.interrupts import listen
from waybill.cli.options import Home, Kafka, resolve
from waybill.cli.tokens import read_token

if TYPE_CHECKING:
    from waybill.cli.lines import Check
    from waybill.settings import Settings


def send(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Requests: one JSON document, an array, or one a line; - is stdin.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the answers and show a table.")] = False,  # noqa: FBT002 - a flag
    answers: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write each answer to this file as it comes; resume from it."),
    ] = None,
    as_json: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--json", help="Print each answer as JSON, one a line, as it comes.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Stop waiting when no answer came for so long.")
    ] = 300.0,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Who you are: a signed token, sent with each request."),
    ] = None,
    unchecked: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--unchecked", help="Do not compare labels and purposes with the policy folder here.")
    ] = False,
    home: Home = None,
    kafka: Kafka = None,
) -> int:
    """Check requests and send them; nothing is sent where one is wrong.

    A request without `requestId` gets a fresh one, and one without `timestampUtc` the present; `deadlineInSeconds` may
    stand for `deadlineUtc`. Without --wait, --out or --json the ids are printed and nothing is waited for.

    With --out, running the same command again resumes: what the file has is not sent again, and answers that came
    meanwhile are fetched. `FILE.sent` beside it lists what was sent.

    A worker that checks who asks wants a token (`waybill identity token` makes one for trying out); actor and tenant
    of the requests are those of the token.

    Example: `waybill send requests.jsonl --out answers.jsonl`
    """
    if answers is not None and str(answers) == "-":
        raise ConfigError("--out names a file; --json writes to standard output")
    settings = resolve(home=home, kafka=kafka)
    from waybill.cli.lines import STDIN, read  # noqa: PLC0415 - `--help` needs none of it
    from waybill.cli.sending import Sending  # noqa: PLC0415 - the same

    if str(file) == STDIN:
        listen()
    lines = read(file, datetime.now(UTC), lambda: str(uuid4()), None if unchecked else _label_check(settings))
    token, _ = read_token(token_file)
    listen()
    waits = wait or as_json or answers is not None
    sending = Sending(lines, token, timeout if waits else None, table=wait, as_json=as_json)
    return sending.run(settings.kafka_settings(), answers)


def _label_check(settings: Settings) -> Check | None:
    """Return what compares a request with the labels of the policy folder here; None where there are none."""
    from evidence.errors import RecordError  # noqa: PLC0415 - `--help` needs none of it
    from policy.labels import load  # noqa: PLC0415 - the same
    from streams.request import RuntimeRequest  # noqa: PLC0415 - the same

    path = settings.policy_folder() / "labels.yaml"
    if not path.is_file():
        return None
    labels = load(path)

    def check(request: RuntimeRequest) -> None:
        declared = [item.classification for item in request.input.context if item.classification is not None]
        try:
            labels.check_request(
                request.classification,
                request.purpose,
                request.task_type,
                request.data_categories,
                request.data_regulations,
            )
            for label in declared:
                labels.parse(label, labels.classes, "data classification of a context source")
        except RecordError as error:
            raise RecordError(error.code, f"{error}, as {path} says (--unchecked sends it all the same)") from None

    return check
