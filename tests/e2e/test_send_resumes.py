"""`waybill send --out` on a running pipeline: killed or stopped, the same command goes on; nothing is asked twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dev_run import ROOT, environment, running, waybill

COUNT = 400
WAIT_S = 90


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """The home of a running `waybill dev`."""
    folder = tmp_path_factory.mktemp("send") / "home"
    with running(folder, "--local-model", "in-process") as run:
        run.until_ready()
        yield folder


def request(about: str, **changes: Any) -> dict[str, Any]:
    """Give a request that a hosted model answers."""
    return {
        "contractVersion": "1.0", "tenant": {"id": "acme"}, "actor": {"id": "ana"}, "taskType": "question",
        "purpose": "product-research", "classification": "public",
        "consent": {"basis": "contract", "reference": "dpa-2026-04"},
        "input": {"messages": [{"role": "user", "content": about}]},
    } | changes  # fmt: skip


def batch(folder: Path, name: str, count: int = COUNT, **changes: Any) -> Path:
    """Write a file of requests without ids."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(request(f"{name} {number}?", **changes)) + "\n" for number in range(count)))
    return path


def start(home: Path, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    """Start `waybill send`."""
    return subprocess.Popen(
        [sys.executable, "-m", "waybill", "send", *arguments, "--home", str(home)],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        **more,
    )  # fmt: skip


def prompts(home: Path) -> Counter[str]:
    """Count the calls that the stand-in was sent, by prompt."""
    path = home / "logs" / "stand-in-calls.jsonl"
    whole = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.exists() else []
    return Counter(json.loads(line)["prompt_sha256"] for line in whole)


def answers(path: Path) -> list[dict[str, Any]]:
    """Read a file of answers; a last line that is being written does not count."""
    return [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()] if path.exists() else []


def until(condition: Any) -> None:
    """Wait until something holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_that_was_stopped_goes_on(number, home, tmp_path):
    """Every request has one answer in the file after the second run, and was asked once."""
    file, out = batch(tmp_path, f"stopped by {number}"), tmp_path / "answers.jsonl"
    before = prompts(home)
    process = start(home, str(file), "--out", str(out))
    until(lambda: len(answers(out)) > 10)
    process.send_signal(number)
    _, told = process.communicate(timeout=WAIT_S)
    stopped = len(answers(out))
    assert 10 < stopped < COUNT, told
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert f"stopped; {stopped} of {COUNT} answers are in {out}" in told
        assert "run the same command again" in told
    else:
        # What was sent is answered while nobody looks: the next run has to fetch it.
        until(lambda: (prompts(home) - before).total() >= COUNT - 150)
    done = waybill("send", str(file), "--out", str(out), "--home", str(home))
    assert done.returncode == 0, done.stderr
    found = answers(out)
    assert Counter(each["outcome"] for each in found) == {"completed": COUNT}
    assert len({each["requestId"] for each in found}) == COUNT
    assert all(each["receipt"]["servedBy"] and each["output"]["text"] for each in found)
    assert set((prompts(home) - before).values()) == {1}
    assert (prompts(home) - before).total() == COUNT
    again = waybill("send", str(file), "--out", str(out), "--home", str(home))
    assert (again.returncode, again.stdout) == (0, "")
    assert f"{COUNT} of {COUNT} answers are in {out} (completed {COUNT})" in again.stderr
    assert answers(out) == found


def test_answers_of_what_was_sent_without_a_file_are_fetched(home, tmp_path):
    """Requests with ids of their own that were sent and forgotten are answered out of the topic, not asked again."""
    file, out = tmp_path / "ids.json", tmp_path / "answers.jsonl"
    file.write_text(json.dumps([request(f"kept {n}?", requestId=f"kept-{n}") for n in range(20)], indent=2))
    before = prompts(home)
    assert waybill("send", str(file), "--home", str(home)).stdout.split() == [f"kept-{n}" for n in range(20)]
    until(lambda: (prompts(home) - before).total() == 20)
    done = waybill("send", str(file), "--out", str(out), "--home", str(home))
    assert done.returncode == 0, done.stderr
    assert {each["requestId"]: each["outcome"] for each in answers(out)} == {
        f"kept-{n}": "completed" for n in range(20)
    }
    assert (prompts(home) - before).total() == 20


def test_a_duplicate_brings_the_first_answer(home, tmp_path):
    """The same work under another id is answered with the first one's answer, and says whose it is."""
    for name in ("first", "second"):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(request("the same?", requestId=name, idempotencyKey="same")))
    first, second = (
        json.loads(waybill("send", str(tmp_path / f"{name}.json"), "--json", "--home", str(home)).stdout)
        for name in ("first", "second")
    )
    assert first["outcome"] == "completed"
    assert second == {**first, "requestId": "second", "duplicateOf": "first"}


def test_a_document_comes_from_standard_input(home):
    """`-` is standard input, and an indented document is one request."""
    process = start(home, "-", "--json", stdin=subprocess.PIPE)
    said, told = process.communicate(json.dumps(request("from a pipe?", requestId="piped"), indent=4), timeout=WAIT_S)
    assert process.returncode == 0, told
    assert json.loads(said)["requestId"] == "piped"
    assert said.count("\n") == 1


def test_a_closed_output_is_quiet(home, tmp_path):
    """A reader that goes away ends the command without a word of its own."""
    process = start(home, str(batch(tmp_path, "closed", 60)), "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read()
    assert process.wait(WAIT_S) != 0
    assert [line for line in told.splitlines() if not line.startswith("sent ")] == []
    process.stderr.close()


def test_labels_that_the_deployment_does_not_know_are_told_before(home, tmp_path):
    """A purpose or class that would be rejected is refused with its line and the words that are known."""
    path = tmp_path / "some.jsonl"
    wrong = [request("x", purpose="marketing"), request("x"), request("x", classification="secret")]
    path.write_text("".join(json.dumps(each) + "\n" for each in wrong))
    done = waybill("send", str(path), "--wait", "--home", str(home))
    assert done.returncode == 2
    rows = done.stderr.splitlines()
    assert len(rows) == 3
    assert "line 1: unknown purpose: use one of customer-support" in rows[1]
    assert "line 3: unknown data classification: use one of public" in rows[2]
    sent = waybill("send", str(path), "--json", "--unchecked", "--home", str(home))
    assert Counter(json.loads(line)["outcome"] for line in sent.stdout.splitlines()) == {"rejected": 2, "completed": 1}


def test_the_samples_of_the_project_have_an_answer_each(home, tmp_path):
    """A file with a broken record among its requests ends too: that one is rejected."""
    out = tmp_path / "answers.jsonl"
    done = waybill("send", "config/requests.jsonl", "--out", str(out), "--wait", "--home", str(home), timeout_s=170)
    assert done.returncode == 0, done.stderr
    assert "How the requests ended" in done.stdout
    assert len(answers(out)) == 16
    (broken,) = [each for each in answers(out) if each["outcome"] == "rejected"]
    assert broken["failure"]["code"] == "not_json"
