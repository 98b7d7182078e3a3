"""Detection: secrets and numbers in the forms that JSON, HTML, URLs, tables and commands give them."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.detection.detectors import Detectors
from policy.detection.escapes import TRIGGER, unescape
from policy.redaction import mask

DETECTORS = Detectors()
INNER = json.dumps({"user": "ana", "password": "hunter2!xyz"})
SIGNATURE = "Ab3%2Bk9XzPqLmN8rT5vW2yB4cD6eF7gH1jK0lM%3D"
DIGEST = hashlib.sha256(b"link").hexdigest()
KEY_ID = "AKIA" + "QWERTY7UIOPAS2DF"


def _masked(text: str) -> str:
    return mask(text, DETECTORS.scan(text))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (json.dumps({"arguments": INNER}), r'{"arguments": "{\"user\": \"ana\", \"password\": \"[HIDDEN]\"}"}'),
        (r'"{\"api_key\": \"0123456789abcdef0123456789abcdef\"}"', r'"{\"api_key\": \"[HIDDEN]\"}"'),
        (r'"{\"client_secret\": \"Zk9-33kLmq_Pq2\"}"', r'"{\"client_secret\": \"[HIDDEN]\"}"'),
        (r'"{\\\"password\\\": \\\"hunter2!xyz\\\"}"', r'"{\\\"password\\\": \\\"[HIDDEN]\\\"}"'),
        (r"log: '{\'token\': \'Zk9q33kLmqqPq2xx\'}'", r"log: '{\'token\': \'[HIDDEN]\'}'"),
        ('{"password": "a\\"b9!kkk"}', '{"password": "[HIDDEN]"}'),
        ("{&quot;password&quot;: &quot;hunter2!xyz&quot;}", "{&quot;password&quot;: &quot;[HIDDEN]&quot;}"),
        ("{&#34;password&#34;: &#x22;hunter2!xyz&#x22;}", "{&#34;password&#34;: &#x22;[HIDDEN]&#x22;}"),
        ("GET /?q=password%3Dhunter2!xyz&x=1", "GET /?q=password%3D[HIDDEN]&x=1"),
        ("GET /?q=password%253Dhunter2%2521xyz", "GET /?q=password%253D[HIDDEN]"),
        ("%22password%22%3A%20%22hunter2!xyz%22", "%22password%22%3A%20%22[HIDDEN]%22"),
        ("GET /?pan=4111%201111%201111%201111", "GET /?pan=[CARD]"),
        ("GET /?phone=%2B49%2030%20901820", "GET /?phone=[PHONE]"),
        ("card 4111&nbsp;1111&nbsp;1111&nbsp;1111", "card [CARD]"),
    ],
)
def test_what_another_form_escapes_is_found(text, left):
    """A secret or number is found through the escapes of JSON, HTML and URLs, and no more than it is taken out."""
    assert _masked(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"name": "DB_PASSWORD", "value": "hunter2!xyz"}', '{"name": "DB_PASSWORD", "value": "[HIDDEN]"}'),
        ("- name: DB_PASSWORD\n  value: hunter2!xyz\n", "- name: DB_PASSWORD\n  value: [HIDDEN]\n"),
        ('- name: DB_PASSWORD\n  value: "hunter2"\n', '- name: DB_PASSWORD\n  value: "[HIDDEN]"\n'),
        ('<input type="password" value="S3cr3tPw1"/>', '<input type="password" value="[HIDDEN]"/>'),
        ('<input type="password" id="p" value="S3cr3tPw1">', '<input type="password" id="p" value="[HIDDEN]">'),
        ('"password":\n    "hunter2!xyz"', '"password":\n    "[HIDDEN]"'),
        ("password:\n  hunter2!xyz\n", "password:\n  [HIDDEN]\n"),
        ("| password | hunter2!xyz |", "| password | [HIDDEN] |"),
        ("<td>Password</td> <td>S3cr3tPw1</td>", "<td>Password</td> <td>[HIDDEN]</td>"),
        ("mysql -u root -pS3cr3tPw1 shop", "mysql -u root -p[HIDDEN] shop"),
        ("mysqldump -p'S3cr3t Pw1' shop", "mysqldump -p'[HIDDEN]' shop"),
        ("sshpass -p S3cr3tPw1 ssh ana@host", "sshpass -p [HIDDEN] ssh ana@host"),
        ("docker login -u ana -p S3cr3tPw1 host", "docker login -u ana -p [HIDDEN] host"),
        (f"https://x.example/c/f?sv=2020&sig={SIGNATURE}&se=1", "https://x.example/c/f?sv=2020&sig=[URL_LOGIN]&se=1"),
        (f"https://x.example/f?X-Amz-Signature={DIGEST}", "https://x.example/f?X-Amz-Signature=[URL_LOGIN]"),
    ],
)
def test_a_value_apart_from_its_name_is_found(text, left):
    """A value in another member, cell, line or option than the name that says what it is, is found and only it goes."""
    assert _masked(text) == left


@pytest.mark.parametrize(
    "text",
    [
        '{"password": null, "user": "bob"}',
        '{"password": false, "x": "y"}',
        '{"password": true, "token": null, "secret": "none"}',
        "{'password': None, 'user': 'robert'}",
        'The "password" field, the "token" field',
        "The 'password' field, the 'token' field",
        '["password", "username", "token", "secret"]',
        '<input type="password" value=""/> <a href="next">',
        '<label for="password">Password</label><input id="password" class="wide">',
        "| Password | Username | Token |\n| --- | --- | --- |\n",
        "| token | 1,234 | words |",
        "password:\n  required: true\n  min_length: 8\n",
        "Enter your password:\nThe field takes eight characters.",
        "mysql -u root -p shop",
        r"C:\new\temp\users and 100%20 or \"quoted\" words",
        "if (token == null) { return value; }",
    ],
)
def test_a_word_that_names_a_secret_is_none(text):
    """JSON, HTML, tables and prose that speak of passwords and hold none stay as they are."""
    assert DETECTORS.scan(text) == ()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgres://app:p@ssw0rd9@db.example.com:5432/x", "postgres://app:[URL_LOGIN]:5432/x"),
        ("redis://:p@ss:w@rd@cache:6379/0", "redis://:[URL_LOGIN]@cache:6379/0"),
        ("amqp://app:p@ssw0rd9@mq/vhost?x=a@b", "amqp://app:[URL_LOGIN]@mq/vhost?x=a@b"),
        ("https://u:p?q#r5@h/x", "https://u:[URL_LOGIN]@h/x"),
        ("postgres://app:secretpw1@db/x and mail b@c", "postgres://app:[URL_LOGIN]@db/x and mail b@c"),
    ],
)
def test_a_password_in_a_connection_string_ends_at_the_last_sign(text, left):
    """User information reaches to the last `@` before a `/`, `?`, `#` or blank, and what is masked is a credential."""
    assert _masked(text) == left
    assert {finding.kind for finding in DETECTORS.scan(text)} == {"url_password"}


@pytest.mark.parametrize("text", ["http://host:8080/a@b", "http://host:8080?next=a@b", "see http://h:80, or a@b"])
def test_a_port_is_no_password(text):
    """Digits behind a host, with an `@` later in the link, are none."""
    assert DETECTORS.scan(text) == ()


HIDING = [chr(code) for code in (*range(9), 0x0E, 0x1B, 0x1E, 0x1F, 0x7F, 0x80, 0x9F)]
BLANK = ["\u3164", "\u115f", "\u1160", "\uffa0", "\u2800", "\u180e", "\u2065", "\U000e0001", "\U000e007f"]


@pytest.mark.parametrize("hiding", HIDING + BLANK, ids=lambda character: f"U+{ord(character):04X}")
@pytest.mark.parametrize(
    ("value", "kind"),
    [("4111 1111 1111 1111", "card"), ("ana@example.com", "email"), (KEY_ID, "aws_key"), ("hunter2!xyz", "assignment")],
)
def test_characters_that_are_not_seen_hide_nothing(hiding, value, kind):
    """Controls and letters that look like nothing, between all characters of a value, leave it found and whole."""
    before = "password: " if kind == "assignment" else "see "
    hidden = hiding.join(value)
    (finding,) = DETECTORS.scan(f"{before}{hidden} today")
    assert (finding.kind, finding.start, finding.end) == (kind, len(before), len(before) + len(hidden))


def test_tag_characters_are_read_as_models_read_them():
    """An address and a password written in tag characters, which no font draws, are found."""
    shadow = "".join(chr(0xE0000 + ord(character)) for character in "ana@example.com")
    assert _masked(f"Hello {shadow}") == "Hello [EMAIL]"
    assert "hunter2" not in _masked("".join(chr(0xE0000 + ord(c)) for c in "password: hunter2!xyz"))


@pytest.mark.parametrize(
    "text", ["plain\x00 text \x1e with \x1f controls\x7f", "a\ttab\r\nand lines\n", "ESC[2J \x1b[0m"]
)
def test_controls_alone_are_no_finding(text):
    """A text with control characters that holds nothing has no finding."""
    assert DETECTORS.scan(text) == ()


def test_a_hash_that_begins_like_a_key_is_none():
    """Hashes in hexadecimal, small or in capitals, and base64 that begin like an AWS id are none; ids of both are."""
    digest = "acca3f8e0d1c2b3a4f5e6d7c8b9a0f1e2d3c4b5a"
    for text in (
        digest,
        digest.upper(),
        f"commit {digest}",
        f"sha256:{digest}{digest[:24]}",
        "x/AccaXy09AbCd12EfGh34Ij",
    ):
        assert DETECTORS.scan(text) == (), text
    for text in (KEY_ID, KEY_ID.lower(), "ACCA" + KEY_ID[4:]):
        assert [finding.kind for finding in DETECTORS.scan(text)] == ["aws_key"], text


PIECES = st.lists(
    st.sampled_from(
        ["a", "é", '"', "\\", '\\"', "\\\\", "\\n", "\\u0040", "%40", "%2540", "&quot;", "&amp;#34;", "%zz"]
    )
    | st.characters(max_codepoint=127),
    max_size=30,
).map("".join)


@given(PIECES)
def test_the_way_back_from_undone_escapes_is_exact(text):
    """What was no escape leads back to itself, in order, and the whole text to the whole text."""
    plain = unescape(text)
    places = [plain.span(place, place + 1) for place in range(len(plain.text))]
    assert [start for start, _ in places[1:]] == [end for _, end in places[:-1]]
    assert not places or (places[0][0], places[-1][1]) == (0, len(text))
    for place, (start, end) in enumerate(places):
        assert end - start > 1 or text[start] == plain.text[place]


@given(PIECES)
def test_what_can_be_undone_the_prefilter_sees(text):
    """Where undoing escapes changes a text, the prefilter says so."""
    import re2  # noqa: PLC0415 - its types are not known

    text = text.encode("ascii", "ignore").decode()
    if unescape(text).text != text:
        assert re2.search(TRIGGER, text.encode())
