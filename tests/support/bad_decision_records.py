"""Decision records with one fault each, and what has to be said of it.

`CASES` holds a name, an edit of `decision_samples.TEXT`, and how the message begins after the file's name: the line,
the field and the words. `text` makes the bad record.
"""

from __future__ import annotations

from decision_samples import OLDER, POLICY, PRICE, TEXT

Edit = tuple[str, str]
"""A part of the good record, and what stands in its place."""

CASES: list[tuple[str, Edit, str]] = [
    # the file
    ("empty", (TEXT, ""), "1: an empty file is no decision record"),
    ("not YAML", ("title: Q", "title: [Q"), "5: not YAML"),
    ("a list", (TEXT, "- a record\n"), "1: must be an object"),
    (
        "a key given twice",
        ("owner: platform team", "owner: platform team\nowner: other"),
        "7: not YAML: the key 'owner'",
    ),
    ("an alias", ("owner: platform team", "owner: *me"), "6: not YAML: aliases are not used"),
    ("an unknown field", ("status: accepted", "stauts: accepted\nstatus: accepted"), "5: stauts: unknown field"),
    # about the record
    ("another version", ("version: 1\n", "version: 2\n"), "2: version: must be 1"),
    ("another route", ("route: hosted\n", "route: other\n"), "3: route: the file is called `hosted.yaml`"),
    ("no title", ("title: Questions go to a large model elsewhere.\n", ""), "2: title: is missing"),
    ("an unknown status", ("status: accepted", "status: approved"), "5: status: must be 'proposed'"),
    ("a proposal", ("status: accepted", "status: proposed"), "5: status: a record that is proposed starts no route"),
    ("withdrawn", ("status: accepted", "status: withdrawn"), "5: status: a record that is withdrawn starts no route"),
    ("no owner", ("owner: platform team", "owner: TBD"), "6: owner: this is a placeholder"),
    ("a number as date", ("decided: 2026-11-01", "decided: 20261101"), "7: decided: no date: write YYYY-MM-DD"),
    ("no such day", ("decided: 2026-11-01", "decided: '2026-11-31'"), "7: decided: must be a day"),
    ("decided tomorrow", ("decided: 2026-11-01", "decided: 2026-11-25"), "7: decided: 2026-11-25 is still to come"),
    ("overdue", ("review_by: 2027-05-31", "review_by: 2026-11-23"), "8: review_by: the review was due on 2026-11-23"),
    ("review before", ("review_by: 2027-05-31", "review_by: 2026-10-01"), "8: review_by: must lie after the day"),
    (
        "review never",
        ("review_by: 2027-05-31", "review_by: 2099-01-01"),
        "8: review_by: 26359 days after the decision are no review",
    ),
    # the questions
    (
        "a question left out",
        (TEXT[TEXT.index("  trace_correlation:") : TEXT.index("locations:")], ""),
        "9: questions.trace_correlation: is missing",
    ),
    (
        "an answer left out",
        ("    assumption: Labels are honest.\n", ""),
        "10: questions.data_classification.assumption: is missing",
    ),
    (
        "an empty answer",
        ("assumption: Labels are honest.", "assumption: ''"),
        "12: questions.data_classification.assumption: this is empty",
    ),
    (
        "nothing after the colon",
        ("assumption: Labels are honest.", "assumption:"),
        "12: questions.data_classification.assumption: must be a text",
    ),
    (
        "TBD",
        ("trade_off: Answers are shorter then.", "trade_off: TBD"),
        "21: questions.offline_fallback.trade_off: this is a placeholder",
    ),
    (
        "todo within a sentence",
        ("trade_off: Answers are shorter then.", "trade_off: The trade-off is TODO until the meeting."),
        "21: questions.offline_fallback.trade_off: this is a placeholder",
    ),
    (
        "n/a",
        ("constraint: Nothing is kept outside the EU.", "constraint: n/a"),
        "23: questions.cross_region_state.constraint: this is a placeholder",
    ),
    (
        "see above",
        ("constraint: Nothing is kept outside the EU.", "constraint: (see above)"),
        "23: questions.cross_region_state.constraint: this is a placeholder",
    ),
    (
        "one word",
        ("constraint: Each call carries its trace.", "constraint: tracing"),
        "31: questions.trace_correlation.constraint: 7 characters decide nothing",
    ),
    (
        "one text twice",
        ("assumption: Labels are honest.", "assumption: Only public data may cross."),
        "10: questions.data_classification: constraint, assumption and trade_off are three answers",
    ),
    # where it lives
    (
        "a location left out",
        ("  data: {place: Kafka topics, region: on-site}\n", ""),
        "34: locations.data: is missing",
    ),
    (
        "a place without a region",
        ("{place: Kafka topics, region: on-site}", "{place: Kafka topics}"),
        "37: locations.data.region: is missing",
    ),
    (
        "another region than the route's",
        ("place: the provider, region: eu", "place: the provider, region: us"),
        "36: locations.execution.region: the route processes data in `eu`",
    ),
    # what was reviewed
    ("no artifact's version", ("    version: large-1-2026-06-01\n", ""), "40: pins.artifact: pins nothing"),
    (
        "no digest and no reason",
        ("    no_digest_because: The weights stay with the provider.\n", ""),
        "40: pins.artifact: pins nothing",
    ),
    (
        "a digest and a reason for none",
        ("    version: large-1-2026-06-01\n", f"    digest: {PRICE}\n"),
        "40: pins.artifact: has a digest and says why it has none",
    ),
    (
        "another model than the route's",
        ("name: large-1\n", "name: large-0\n"),
        "41: pins.artifact.name: the route asks for `large-1`",
    ),
    ("no runtime's version", ("    version: v1\n", ""), "44: pins.runtime.version: is missing"),
    (
        "no policy",
        (f"  policy:\n    - {POLICY}  # reviewed with everybody\n    - {OLDER}\n", "  policy: []\n"),
        "47: pins.policy: must list 1 or more",
    ),
    ("a policy twice", (f"    - {OLDER}", f"    - {POLICY}"), "47: pins.policy: names a digest twice"),
    ("a policy that is no digest", (f"    - {OLDER}", "    - 1.0.3"), "49: pins.policy.1: no digest"),
    (
        "a policy that was not reviewed",
        (f"    - {POLICY}", "    - sha256:" + "9" * 64),
        f"47: pins.policy: the policy is {POLICY}, which was not reviewed",
    ),
    ("a short digest", (f"price: {PRICE}", f"price: {PRICE[:-1]}"), "50: pins.price: no digest"),
    ("a digest in capitals", (f"price: {PRICE}", "price: sha256:" + "A" * 64), "50: pins.price: no digest"),
    (
        "another price",
        (f"price: {PRICE}", "price: sha256:" + "0" * 64),
        f"50: pins.price: price and limits are {PRICE}, which was not reviewed",
    ),
    # what is assumed
    (
        "a number as text",
        ("value: 0.02,", "value: '0.02',"),
        "53: assumptions.cost.usd_per_request.value: must be a number",
    ),
    (
        "no tolerance",
        ("{value: 100, tolerance_percent: 10}", "{value: 100}"),
        "54: assumptions.cost.usd_per_month.tolerance_percent: is missing",
    ),
    (
        "a negative number",
        ("value: 900,", "value: -900,"),
        "60: assumptions.latency.p95_ms.value: must be 0 or more",
    ),
    (
        "a tolerance of anything",
        ("value: 10, tolerance_percent: 0", "value: 10, tolerance_percent: 1000"),
        "57: assumptions.capacity.in_flight.tolerance_percent: must be 100 or less",
    ),
    (
        "a number that is none",
        ("value: 500,", "value: .nan,"),
        "59: assumptions.latency.p50_ms.value: must be a finite number",
    ),
    ("a cheaper month", ("value: 100,", "value: 0.01,"), "51: assumptions: cost.usd_per_month is less than"),
    ("a faster tail", ("value: 900,", "value: 100,"), "51: assumptions: latency.p95_ms is less than"),
    ("nothing at once", ("value: 10, tol", "value: 0, tol"), "51: assumptions: requests_per_minute, in_flight and"),
    (
        "more at once than assumed",
        ("value: 60,", "value: 6000,"),
        "51: assumptions: 6000 requests a minute of 500 ms each are 50 at the same time, and in_flight is 10",
    ),
]
"""Name, edit, and what the message says after `<file>:`."""


def text(edit: Edit) -> str:
    """Give the bad record.

    Raises:
        ValueError: the edit changes nothing, or something that is there twice.
    """
    old, new = edit
    if TEXT.count(old) != 1:
        raise ValueError(f"{old!r} stands {TEXT.count(old)} times in the good record")
    return TEXT.replace(old, new)
