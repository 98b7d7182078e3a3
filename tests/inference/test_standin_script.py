"""A stand-in's script: what may be written, which rule decides, what the answer is."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import ConfigError
from inference.standin.script import (
    MARK,
    Asked,
    AskedMessage,
    Behaviour,
    Rule,
    Script,
    choose,
    default_text,
    reply_to,
)

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)


def asked(*texts: str, **changes: int) -> Asked:
    """A request with these user messages."""
    return Asked(model="m", messages=tuple(AskedMessage(role="user", content=text) for text in texts), **changes)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("{", "the whole"),
        ('{"rules": [{"contain": "x"}]}', "rules.0.contain"),
        ('{"rules": [{"do": {"latency": 3}}]}', "rules.0.do.latency"),
        ('{"rules": [{"do": {"status": "429"}}]}', "rules.0.do.status"),
        ('{"rules": [{"do": {"status": 99}}]}', "rules.0.do.status"),
        ('{"rules": [{"do": {"drop": "later"}}]}', "rules.0.do.drop"),
        ('{"rules": [{"times": 0}]}', "rules.0.times"),
        ('{"rules": [{"contains": ""}]}', "rules.0.contains"),
        ('{"rules": [{"do": {"status": 429, "drop": "mid-body"}}]}', "exclude each other"),
        ('{"rules": [{"do": {"refusal": "no", "text": "yes"}}]}', "text is never sent"),
        ('{"rules": [{"do": {"retry_after_s": 1}}]}', "needs a status"),
        ('{"rules": [{"do": {"status": 204}}]}', "has no body"),
        ('{"rules": [{"do": {"drop": "before-read", "latency_ms": 5}}]}', "closes at once"),
        ('{"rules": [{"do": {"redirect": "http://a/\\r\\nX-Evil: 1"}}]}', "printable"),
        ('{"rules": [{"contains": "x", "do": {"drop": "before-read"}}]}', "before the messages are known"),
    ],
)
def test_wrong_scripts_are_refused(script: str, fault: str, tmp_path: Path) -> None:
    """An unknown field, a wrong value or a contradiction is an error that names the place, never ignored."""
    path = tmp_path / "faults.json"
    path.write_text(script)
    with pytest.raises(ConfigError) as caught:
        Script.load(path)
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_script_is_named(tmp_path: Path) -> None:
    """A script that is not there is an error with its name."""
    with pytest.raises(ConfigError, match=r"none\.json cannot be read"):
        Script.load(tmp_path / "none.json")


def test_script_round_trip() -> None:
    """A script that was written out reads back as the same."""
    script = Script(rules=(Rule(contains="x", times=2, do=Behaviour(status=429, retry_after_s=3, latency_ms=1.5)),))
    assert Script.parse(script.model_dump_json().encode(), "inline") == script


def test_first_match_decides() -> None:
    """Rules are tried in order; one that is spent is passed over."""
    rules = (Rule(contains="weather", times=2), Rule(call_id="int-7"), Rule(contains="weather"))
    assert choose(rules, [0, 0, 0], "int-7", "the weather") == 0
    assert choose(rules, [2, 0, 0], "int-7", "the weather") == 1
    assert choose(rules, [2, 0, 0], "int-8", "the weather") == 2
    assert choose(rules, [0, 0, 0], "int-8", "the Weather") is None


def test_unread_drop_waits_for_earlier_rules() -> None:
    """On the headers alone only a before-read rule is found, and only where no earlier rule might want the request."""
    drop = Rule(call_id="int-7", do=Behaviour(drop="before-read"))
    assert choose((drop,), [0], "int-7", None) == 0
    assert choose((drop,), [0], "int-8", None) is None
    assert choose((Rule(contains="x"), drop), [0, 0], "int-7", None) is None
    assert choose((Rule(call_id="int-8"), drop), [0, 0], "int-7", None) == 1


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 50))
def test_default_answer_is_marked_and_deterministic(texts: list[str], limit: int) -> None:
    """The default answer always begins with the mark, is the same for the same request, and keeps to max_tokens."""
    request = asked(*texts, max_tokens=limit)
    first, again = (orjson.loads(reply_to(request, Behaviour(), 7, 12.9).body) for _ in range(2))
    content = first["choices"][0]["message"]["content"]
    assert first == again
    assert content.startswith(MARK)
    assert default_text(request).startswith(content)
    assert len(content.split(" ")) <= limit
    assert (first["provider"], first["model"], first["created"]) == ("stand-in", "stand-in/m", 12)


@given(
    st.builds(
        Behaviour,
        status=st.none() | st.integers(300, 599).filter(lambda status: status != 304),
        latency_ms=st.floats(0, 10),
    )
)
def test_each_reply_is_marked(do: Behaviour) -> None:
    """Errors carry the mark as well as answers."""
    assert orjson.loads(reply_to(asked("x"), do, 1, 0.0).body)["provider"] == "stand-in"
