"""A route starts only with a complete, accepted record whose review is not overdue and whose pins are today's."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from bad_decision_records import CASES, text
from decision_samples import HOSTED, LOCAL, LOCAL_TEXT, OLDER, POLICY, PRICE, TEXT, TODAY, WEIGHTS
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import ConfigError
from policy.placement import pages as decision_pages
from policy.placement.form import DecisionRecord
from policy.placement.records import load

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "decisions"
OTHER = "sha256:" + "9" * 64


@pytest.fixture
def folder(tmp_path):
    """Give a folder with the records of both sample routes."""
    (tmp_path / "hosted.yaml").write_text(TEXT, encoding="utf-8")
    (tmp_path / "local.yaml").write_text(LOCAL_TEXT, encoding="utf-8")
    return tmp_path


def refused(folder, routes=(HOSTED, LOCAL), *, policy=POLICY, today=TODAY) -> str:
    """Give what is said where the records are not good enough."""
    with pytest.raises(ConfigError) as caught:
        load(folder).check(routes, policy_digest=policy, today=today)
    return str(caught.value)


def test_complete_records_are_enough(folder):
    """Nothing is said of routes whose records are complete and pinned as they are."""
    records = load(folder)
    records.check([HOSTED, LOCAL], policy_digest=POLICY, today=TODAY)
    assert records.faults([HOSTED, LOCAL], policy_digest=POLICY, today=TODAY) == ()
    assert set(records.whole()) == {"hosted", "local"}


@pytest.mark.parametrize(("edit", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_bad_record_gives_one_error_with_its_line(folder, edit, said):
    """Each of the bad records is told in one line that begins with file, line and field."""
    (folder / "hosted.yaml").write_text(text(edit), encoding="utf-8")
    message = refused(folder)
    assert message.startswith(f"{folder / 'hosted.yaml'}:{said}")
    assert "\n" not in message


def test_the_table_of_bad_records_has_no_case_twice():
    """Names and edits of the cases differ."""
    assert len({name for name, _, _ in CASES}) == len({edit for _, edit, _ in CASES}) == len(CASES) >= 50


def test_a_route_without_a_record_is_told(folder):
    """The error names the file that has to be written."""
    (folder / "local.yaml").unlink()
    assert refused(folder).startswith(f"{folder / 'local.yaml'}:1: route local has no decision record: write this file")


def test_a_record_for_no_route_is_told(folder):
    """A record that outlived its route is an error at its line."""
    said = f"{folder / 'local.yaml'}:3: route: there is no route `local` in the route table"
    assert refused(folder, [HOSTED]).startswith(said)


def test_a_record_under_a_second_name_is_told(folder):
    """Two files cannot speak of one route, because a file is called as its route is."""
    (folder / "second.yaml").write_text(TEXT, encoding="utf-8")
    assert refused(folder).startswith(f"{folder / 'second.yaml'}:3: route: the file is called `second.yaml`")


@pytest.mark.parametrize("name", ["hosted.yml", "hosted.json", "notes.txt"])
def test_what_is_no_record_is_told(folder, name):
    """A file that would be passed over in silence is an error; pages and hidden files are not."""
    (folder / name).write_text(TEXT, encoding="utf-8")
    (folder / "README.md").write_text("# Records\n", encoding="utf-8")
    (folder / ".hidden").write_text("x", encoding="utf-8")
    assert refused(folder).startswith(f"{folder / name}:1: not a decision record: rename it")


def test_bytes_that_are_no_text_are_told(folder):
    """A file that is not UTF-8 is told with its line."""
    (folder / "hosted.yaml").write_bytes(b"version: 1\nroute: \xff\n")
    assert refused(folder) == f"{folder / 'hosted.yaml'}:2: not UTF-8"


def test_a_folder_that_is_not_there_is_told(tmp_path):
    """The error says what belongs there."""
    with pytest.raises(ConfigError, match=r"cannot read the folder of decision records .*<route>\.yaml"):
        load(tmp_path / "gone")


def test_every_fault_is_told_at_once(folder):
    """Faults of form, of dates and of pins in several files come together, one in a line, file by file."""
    bad = TEXT.replace("trade_off: Answers are shorter then.", "trade_off: TBD").replace("owner: platform team\n", "")
    (folder / "hosted.yaml").write_text(bad, encoding="utf-8")
    late = replace(LOCAL, price_digest=OTHER, region="eu")
    message = refused(folder, [HOSTED, late, replace(HOSTED, name="third")], today=date(2027, 6, 1))
    first, *lines = message.split("\n  ")
    assert first == "6 faults in decision records:"
    assert [line.removeprefix(f"{folder}/").split(": ")[:2] for line in lines] == [
        ["hosted.yaml:2", "owner"],
        ["hosted.yaml:20", "questions.offline_fallback.trade_off"],
        ["local.yaml:8", "review_by"],
        ["local.yaml:36", "locations.execution.region"],
        ["local.yaml:49", "pins.price"],
        ["third.yaml:1", "route third has no decision record"],
    ]


def test_the_day_of_review_is_the_last_one(folder):
    """A record holds through the day of its review and not a day longer."""
    load(folder).check([HOSTED, LOCAL], policy_digest=POLICY, today=date(2027, 5, 31))
    assert "review_by: the review was due on 2027-05-31" in refused(folder, today=date(2027, 6, 1))


@pytest.mark.parametrize("policy", [POLICY, OLDER, None])
def test_each_reviewed_policy_starts_the_route(folder, policy):
    """The newest policy and the one before it were reviewed, so that a rollback starts; None is not compared."""
    load(folder).check([HOSTED, LOCAL], policy_digest=policy, today=TODAY)


def test_another_policy_does_not_start_the_route(folder):
    """A policy that nobody reviewed for the route is told for each route, with what to run."""
    message = refused(folder, policy=OTHER)
    assert message.count(f"pins.policy: the policy is {OTHER}, which was not reviewed") == 2
    assert message.count("`waybill decisions pin --all`") == 2
    (folder / "local.yaml").write_text(LOCAL_TEXT.replace(POLICY, OTHER), encoding="utf-8")
    assert "`waybill decisions pin hosted`" in refused(folder, policy=OTHER)


def test_local_weights_are_pinned_by_digest(folder):
    """A local route's record may not take somebody's word for its weights."""
    word = "version: small-1\n    no_digest_because: The file is large and slow to read."
    (folder / "local.yaml").write_text(LOCAL_TEXT.replace(f"digest: {WEIGHTS}", word), encoding="utf-8")
    assert refused(folder).startswith(f"{folder / 'local.yaml'}:40: pins.artifact: a local route's weights are a file")


def test_other_weights_are_told(folder):
    """Where somebody looked at the weights, they must be those that were reviewed."""
    load(folder).check([HOSTED, replace(LOCAL, artifact_digest=WEIGHTS)], policy_digest=POLICY, today=TODAY)
    message = refused(folder, [HOSTED, replace(LOCAL, artifact_digest=OTHER)])
    assert message.startswith(f"{folder / 'local.yaml'}:42: pins.artifact.digest: the weights are {OTHER}")
    assert "`waybill decisions pin local --artifact local=FILE`" in message


def test_one_record_can_be_read_beside_a_bad_one(folder):
    """`of` gives a good record whatever is wrong with others, and tells what is wrong with that one."""
    (folder / "local.yaml").write_text("version: 1\n", encoding="utf-8")
    records = load(folder)
    assert records.of("hosted").route == "hosted"
    with pytest.raises(ConfigError, match=r"local\.yaml:1: .*is missing"):
        records.of("local")
    with pytest.raises(ConfigError, match=r"there is no decision record .*gone\.yaml; there are: hosted"):
        records.of("gone")
    with pytest.raises(ConfigError, match="faults in decision records"):
        records.whole()


@pytest.mark.parametrize("name", sorted(DecisionRecord.model_fields))
def test_no_field_has_a_default(folder, name):
    """Whichever part of a record is left out, the record is refused and the part is named."""
    lines = TEXT.splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{name}:"))
    end = start + 1
    while end < len(lines) and lines[end].startswith(" "):
        end += 1
    (folder / "hosted.yaml").write_text("".join(lines[:start] + lines[end:]), encoding="utf-8")
    assert f" {name}: is missing" in refused(folder)


@given(shift=st.integers(-900, 900), today=st.integers(-900, 900))
def test_an_overdue_record_never_passes(tmp_path_factory, shift, today):
    """Whatever the dates are, what passes was decided before today, and its review lies ahead."""
    folder = tmp_path_factory.mktemp("dates")
    review, day = TODAY + timedelta(days=shift), TODAY + timedelta(days=today)
    (folder / "hosted.yaml").write_text(TEXT.replace("2027-05-31", review.isoformat()), encoding="utf-8")
    faults = load(folder).faults([HOSTED], policy_digest=POLICY, today=day)
    good = date(2026, 11, 1) <= day <= review and 0 < (review - date(2026, 11, 1)).days <= 731
    assert (faults == ()) is good


def test_a_page_says_everything_that_the_record_says(folder):
    """Every text, number, date and digest of a record is on its page, and no cell breaks its table."""
    odd = TEXT.replace("place: Kafka topics", "place: Kafka | <b>topics</b>")
    (folder / "hosted.yaml").write_text(odd, encoding="utf-8")
    record = load(folder).of("hosted")
    page = decision_pages.markdown(record)
    for answered in decision_pages.questions(record).values():
        for answer in answered.model_dump().values():
            assert answer in page
    for told in (record.title, record.owner, "2026-11-01", "2027-05-31", POLICY, OLDER, PRICE, "large-1-2026-06-01"):
        assert told in page
    assert "Kafka \\| &lt;b>topics&lt;/b>" in page
    for place in ("| Cost of one request, at most | 0.02 USD | 10 % |", "| Latency, 95th percentile | 900 ms | 20 % |"):
        assert place in page


def test_pages_know_every_question_and_every_number(folder):
    """What the pages show is all that a record can hold."""
    record = load(folder).of("hosted")
    assert set(decision_pages.QUESTIONS) == set(type(record.questions).model_fields)
    groups = record.assumptions.model_dump()
    assert set(decision_pages.NUMBERS) == {f"{group}.{name}" for group, inner in groups.items() for name in inner}


def test_the_shipped_records_are_complete():
    """The records of the sample deployment can be read, one for each of its routes."""
    assert set(load(SHIPPED).whole()) == {"hosted-general", "hosted-summaries", "local-small"}
