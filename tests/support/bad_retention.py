"""Retention rules that are wrong, each with the line and the words that its error must have.

The lists that they are loaded with: classes public, internal, confidential, restricted; categories personal, financial,
secret; purposes support and research.
"""

from __future__ import annotations

_ALL = 'version: 1\nrules:\n  - classes: ["*"]\n    purposes: ["*"]\n'
_LAST = '  - {classes: ["*"], purposes: ["*"], payload: none, pseudonym_days: 0}\n'

CASES: tuple[tuple[str, str, str], ...] = (
    ("empty", "", ":1: an empty file"),
    ("not YAML", "version: 1\nrules: [\n", ":3: not YAML"),
    ("a later version", f"version: 2\nrules:\n{_LAST}", ":1: version: "),
    ("no rules", "version: 1\nrules: []\n", ":2: rules: "),
    ("unknown field", f"version: 1\nretain: 3\nrules:\n{_LAST}", ":2: retain: unknown field"),
    (
        "unknown field of a rule",
        f"version: 1\nrules:\n{_LAST.rstrip()[:-1]}, days: 3}}\n",
        ":3: rules.0.days: unknown field",
    ),
    ("key twice", f"version: 1\nversion: 1\nrules:\n{_LAST}", ":2: not YAML: the key 'version' is given twice"),
    ("unknown period", f"version: 1\nkey_period: week\nrules:\n{_LAST}", ":2: key_period: "),
    ("no days in transit", f"version: 1\ntransit_days: 0\nrules:\n{_LAST}", ":2: transit_days: "),
    (
        "unknown class",
        'version: 1\nrules:\n  - classes: [secret]\n    purposes: ["*"]\n    payload: none\n    pseudonym_days: 0\n'
        + _LAST,
        ":3: rules.0.classes.0: secret is none of the classes: use public, internal",
    ),
    (
        "class in upper case",
        'version: 1\nrules:\n  - classes:\n      - public\n      - Internal\n    purposes: ["*"]\n    payload: none\n'
        "    pseudonym_days: 0\n" + _LAST,
        ":5: rules.0.classes.1: Internal is none of the classes",
    ),
    (
        "unknown purpose",
        "version: 1\nrules:\n  - classes: [public]\n    purposes: [suport]\n    payload: none\n    pseudonym_days: 0\n"
        + _LAST,
        ":4: rules.0.purposes.0: suport is none of the purposes",
    ),
    (
        "unknown category",
        _ALL + "    payload: none\n    pseudonym_days: 0\n    answer:\n      forbid: [secrets]\n",
        ":8: rules.0.answer.forbid.0: secrets is none of the categories",
    ),
    (
        "unknown action",
        _ALL + "    payload: none\n    pseudonym_days: 0\n    answer: {forbid: [secret], action: hide}\n",
        ":7: rules.0.answer.action: ",
    ),
    (
        "unknown payload",
        _ALL + "    payload: maybe\n    pseudonym_days: 0\n",
        ":5: rules.0.payload: ",
    ),
    (
        "no word on pseudonyms",
        _ALL + "    payload: none\n",
        ":3: rules.0.pseudonym_days: is missing",
    ),
    (
        "minimum above maximum",
        _ALL + "    payload: keep\n    min_days: 31\n    max_days: 30\n    pseudonym_days: 0\n",
        ":6: rules.0.min_days: 31 is more than max_days (30)",
    ),
    (
        "kept for ever",
        _ALL + "    payload: keep\n    pseudonym_days: 0\n",
        ":5: rules.0.payload: what is kept needs a max_days",
    ),
    (
        "maximum of what is not kept",
        _ALL + "    payload: none\n    max_days: 3\n    pseudonym_days: 0\n",
        ":6: rules.0.max_days: payloads are not kept under this rule",
    ),
    (
        "minimum of what is not kept",
        _ALL + "    payload: none\n    min_days: 3\n    pseudonym_days: 0\n",
        ":6: rules.0.min_days: payloads are not kept under this rule",
    ),
    (
        "negative days",
        _ALL + "    payload: none\n    pseudonym_days: -1\n",
        ":6: rules.0.pseudonym_days: ",
    ),
    (
        "days as a text",
        _ALL + "    payload: none\n    pseudonym_days: ten\n",
        ":6: rules.0.pseudonym_days: ",
    ),
    (
        "class without a rule",
        (
            "version: 1\nrules:\n  - classes: [public, internal, confidential]\n"
            '    purposes: ["*"]\n    payload: none\n    pseudonym_days: 0\n'
        ),
        ":2: rules: restricted has no rule for ",
    ),
    (
        "purpose without a rule",
        'version: 1\nrules:\n  - classes: ["*"]\n    purposes: [support]\n    payload: none\n    pseudonym_days: 0\n',
        ":2: rules: public has no rule for research",
    ),
    (
        "rule that is never reached",
        f'version: 1\nrules:\n{_LAST}  - {{classes: [public], purposes: ["*"], payload: none, pseudonym_days: 0}}\n',
        ":4: rules.1: is never reached",
    ),
    (
        "rule in the shadow of several",
        'version: 1\nrules:\n  - {classes: ["*"], purposes: [support], payload: none, pseudonym_days: 0}\n'
        '  - {classes: ["*"], purposes: [research], payload: none, pseudonym_days: 0}\n' + _LAST,
        ":5: rules.2: is never reached",
    ),
    (
        "sensitive payloads kept longer",
        (
            "version: 1\nrules:\n  - classes: [confidential]\n    purposes: [support]\n    payload: keep\n"
            "    max_days: 60\n    pseudonym_days: 0\n"
            '  - {classes: [public, internal], purposes: ["*"], payload: keep, max_days: 30, pseudonym_days: 0}\n'
        )
        + _LAST,
        ":6: rules.0.max_days: confidential is kept 60 days for support, but internal, which is less sensitive, 30",
    ),
    (
        "sensitive payloads kept at all",
        'version: 1\nrules:\n  - classes: [restricted]\n    purposes: ["*"]\n    payload: keep\n    max_days: 1\n'
        "    pseudonym_days: 0\n" + _LAST,
        ":6: rules.0.max_days: restricted is kept 1 days for ",
    ),
    (
        "sensitive pseudonyms kept longer",
        'version: 1\nrules:\n  - classes: [restricted]\n    purposes: ["*"]\n    payload: none\n    pseudonym_days: 9\n'
        + _LAST,
        ":6: rules.0.pseudonym_days: restricted is kept 9 days for ",
    ),
    (
        "unknown moment of erasure",
        _ALL + "    payload: none\n    pseudonym_days: 0\n    erasure: never\n",
        ":7: rules.0.erasure: ",
    ),
    (
        "rows whose minimum is their maximum",
        "version: 1\nrules:\n"
        + _LAST
        + 'evidence:\n  - name: rows\n    classes: ["*"]\n    purposes: ["*"]\n    min_days: 30\n    max_days: 30\n',
        ":8: evidence.0.min_days: 30 is not below max_days (30)",
    ),
    (
        "rows without a rule for all",
        "version: 1\nrules:\n" + _LAST + 'evidence:\n  - {name: rows, classes: [public], purposes: ["*"]}\n',
        ":5: evidence.0: is the last rule: end with one",
    ),
    (
        "a rule on rows that is never reached",
        "version: 1\nrules:\n"
        + _LAST
        + 'evidence:\n  - {name: all, classes: ["*"], purposes: ["*"]}\n'
        + '  - {name: rows, classes: [public], purposes: ["*"]}\n',
        ":6: evidence.1: is never reached: all matches first",
    ),
    (
        "two rules on rows of one name",
        "version: 1\nrules:\n"
        + _LAST
        + 'evidence:\n  - {name: rows, classes: [public], purposes: ["*"]}\n'
        + '  - {name: rows, classes: ["*"], purposes: ["*"]}\n',
        ":6: evidence.1.name: rows is the name of a rule above",
    ),
    (
        "a rule on rows of an unknown class",
        "version: 1\nrules:\n"
        + _LAST
        + 'evidence:\n  - {name: rows, classes: [secret], purposes: ["*"]}\n'
        + '  - {name: all, classes: ["*"], purposes: ["*"]}\n',
        ":5: evidence.0.classes.0: secret is none of the classes",
    ),
    (
        "a rule on rows whose name is two words",
        "version: 1\nrules:\n" + _LAST + 'evidence:\n  - {name: all rows, classes: ["*"], purposes: ["*"]}\n',
        ":5: evidence.0.name: ",
    ),
)
"""Name, text of the file, and a part of the error's text, which begins with the line."""
