"""The lattice of labels: how labels join, what follows from one, and which words are labels at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.errors import ConfigError, RecordError
from policy.detection.kinds import CATEGORIES, KINDS
from policy.files import Document
from policy.labels import CategoryConfig, ClassConfig, Label, Labels, LabelsConfig, RegulationConfig, load, parse

TEXT = """version: 1
classes:
  - name: public
    handling: {encryption: [tls, loopback, none], destination_days: 30}
  - name: internal
    handling: {destination_days: 30}
  - name: confidential
  - name: restricted
    handling: {hosted: false}
categories:
  personal: {implies: confidential, regulations: [gdpr]}
  financial: {implies: confidential}
  secret: {implies: restricted}
  health: {implies: restricted, regulations: [gdpr, clinic]}
kinds: {card: restricted}
regulations:
  gdpr: {regions: [eu, uk]}
  clinic: {regions: [eu, on-site]}
  harmless: {}
purposes: [support, care]
task_types: [chat]
names: {purposes: [care]}
"""
"""A whole file, in which each line can be broken."""

LABELS = parse(Document(TEXT, "labels.yaml"))
ORDER = ("public", "internal", "confidential", "restricted")
REGIONS = ("eu", "uk", "us", "on-site")
EVERY = (*CATEGORIES, "health", "biometric")
RULES = ("r1", "r2", "r3")


@st.composite
def lattices(draw) -> Labels:
    """Any lattice: one to six classes, categories and kinds that imply any of them, regulations with any regions."""
    classes = tuple(f"c{number}" for number in range(draw(st.integers(1, 6))))
    categories = {
        name: CategoryConfig(
            implies=draw(st.sampled_from(classes)),
            regulations=tuple(draw(st.lists(st.sampled_from(RULES), unique=True))),
        )
        for name in EVERY
    }
    kinds = {}
    for kind in draw(st.lists(st.sampled_from(sorted(KINDS)), unique=True, max_size=4)):
        least = classes.index(categories[KINDS[kind].category].implies)
        kinds[kind] = draw(st.sampled_from(classes[least:]))
    regions = st.lists(st.sampled_from(REGIONS), unique=True).map(tuple)
    return Labels(LabelsConfig(
        version=1, classes=tuple(ClassConfig(name=name) for name in classes), categories=categories, kinds=kinds,
        regulations={name: RegulationConfig(regions=draw(regions)) for name in RULES},
    ))  # fmt: skip


@st.composite
def several(draw) -> tuple[Labels, Label, Label, Label]:
    """A lattice, and three labels of it: each is what some declaration and some findings come to."""
    made = draw(lattices())
    three = [
        made.label(
            draw(st.sampled_from(made.classes)),
            draw(st.lists(st.sampled_from(EVERY), unique=True, max_size=2)),
            draw(st.lists(st.sampled_from(RULES), unique=True, max_size=2)),
            draw(st.lists(st.sampled_from(sorted(KINDS)), unique=True, max_size=2)),
        )
        for _ in range(3)
    ]
    return made, *three


def below(made: Labels, lower: Label, upper: Label) -> bool:
    """Whether a label is no more sensitive than another one, in every part of it."""
    return (
        made.rank(lower.cls) <= made.rank(upper.cls)
        and lower.categories <= upper.categories
        and lower.regulations <= upper.regulations
        and lower.kinds <= upper.kinds
    )


@given(several())
def test_joining_is_the_least_upper_bound(drawn):
    """Join is idempotent, commutative and associative, above both sides, and no higher than it has to be."""
    made, a, b, c = drawn
    both = made.joined([a, b])
    assert made.joined([a, a]) == a
    assert both == made.joined([b, a])
    assert made.joined([a, made.joined([b, c])]) == made.joined([both, c]) == made.joined([a, b, c])
    assert below(made, a, both)
    assert below(made, b, both)
    assert not (below(made, a, c) and below(made, b, c)) or below(made, both, c)
    assert made.join([a.cls, b.cls]) == made.classes[max(made.rank(a.cls), made.rank(b.cls))]


@given(several())
def test_joining_is_monotone(drawn):
    """What joins with something more sensitive is no less sensitive itself."""
    made, a, b, c = drawn
    assert below(made, made.joined([a, c]), made.joined([made.joined([a, b]), c]))


@given(lattices(), st.data())
def test_a_label_grows_with_all_that_is_declared_and_found(made, data):
    """One more category, regulation or finding never lowers a label, and each brings its class and regulations."""
    cls = data.draw(st.sampled_from(made.classes))
    some, more = (data.draw(st.sets(st.sampled_from(EVERY), max_size=2)) for _ in "ab")
    few, many = (data.draw(st.sets(st.sampled_from(sorted(KINDS)), max_size=2)) for _ in "ab")
    lower, upper = made.label(cls, some, (), few), made.label(cls, some | more, ("r1",), few | many)
    assert below(made, lower, upper)
    assert made.rank(upper.cls) >= made.rank(cls)
    for name in some | more | {KINDS[kind].category for kind in few | many}:
        assert name in upper.categories
        assert made.rank(upper.cls) >= made.rank(made.config.categories[name].implies)
        assert set(made.config.categories[name].regulations) <= upper.regulations
    for kind in few | many:
        assert made.rank(upper.cls) >= made.rank(made.class_of(kind))


@given(lattices(), st.sets(st.sampled_from(RULES)), st.sets(st.sampled_from(RULES)))
def test_regions_intersect(made, first, second):
    """Data under several regulations may only be where all of them allow; under one that names none, anywhere."""
    every = frozenset(REGIONS)
    one, other, both = (made.regions(names) for names in (first, second, first | second))
    assert (every if both is None else both) == (every if one is None else one) & (every if other is None else other)


@given(lattices())
def test_where_nothing_is_known_everything_is_assumed(made):
    """The label of data that cannot be looked at is above all that detectors could have found."""
    assert below(made, made.label(made.classes[0], CATEGORIES, ()), made.highest_label)
    assert made.highest_label.cls == made.highest == made.classes[-1]


def test_the_order_is_that_of_the_file():
    """Classes are as sensitive as their places say, whatever their names."""
    assert LABELS.classes == ORDER
    assert [LABELS.rank(name) for name in ORDER] == [0, 1, 2, 3]
    assert (LABELS.lowest, LABELS.highest) == ("public", "restricted")
    assert LABELS.up_to("confidential") == ORDER[:3]
    assert parse(Document(TEXT.replace("public", "zzz"), "labels.yaml")).classes[0] == "zzz"


@pytest.mark.parametrize(
    ("kinds", "cls"),
    [((), "public"), (("email",), "confidential"), (("iban",), "confidential"), (("card",), "restricted"),
     (("email", "jwt"), "restricted")],
)  # fmt: skip
def test_findings_imply_a_class(kinds, cls):
    """A finding's class is its category's, or its own where the file gives one."""
    assert LABELS.detected(kinds) == cls


def test_regulations_follow_categories_to_their_regions():
    """A category brings its regulations, and with them where its data may be processed."""
    label = LABELS.label("public", ["health"], ["harmless"], ["email"])
    assert label == Label("restricted", frozenset({"health", "personal"}), frozenset({"gdpr", "clinic", "harmless"}),
                          frozenset({"email"}))  # fmt: skip
    assert LABELS.regions(label.regulations) == {"eu"}
    assert LABELS.regions({"gdpr"}) == {"eu", "uk"}
    assert LABELS.regions({"harmless"}) is None
    assert LABELS.regions(()) is None


def test_handling_is_by_class():
    """Each class says what must hold of a destination; what is left out is the stricter choice."""
    assert [LABELS.handling[name].hosted for name in ORDER] == [True, True, True, False]
    assert [LABELS.handling[name].destination_days for name in ORDER] == [30, 30, 0, 0]
    assert LABELS.handling["public"].encryption == ("tls", "loopback", "none")
    assert LABELS.handling["confidential"].encryption == ("tls", "loopback")


def test_names_are_looked_for_where_the_file_says():
    """Names and places are looked for in requests with the listed purposes, or in all of them with `*`."""
    assert (LABELS.wants_names("care"), LABELS.wants_names("support")) == (True, False)
    every = parse(Document(TEXT.replace("names: {purposes: [care]}", 'names: {purposes: ["*"]}'), "labels.yaml"))
    assert every.wants_names("support")


GOOD = ("internal", "support", "chat", ("health",), ("gdpr",))


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(
    "word", ["Zq7planted", "Internal", " internal", "ghp_a1B2c3D4e5a1B2c3D4e5a1B2c3D4e5f6G7h8", ""]
)
def test_an_unknown_word_in_a_request_is_refused(place, word):
    """A class, purpose, task, category or regulation that is not listed is refused; the error lists what is."""
    LABELS.check_request(*GOOD)
    words: list = list(GOOD)
    words[place] = (word,) if isinstance(words[place], tuple) else word
    with pytest.raises(RecordError) as caught:
        LABELS.check_request(*words)
    known = (ORDER, ("support", "care"), ("chat",), ("personal", "financial", "secret", "health"),
             ("gdpr", "clinic", "harmless"))[place]  # fmt: skip
    assert caught.value.code == "unknown_label"
    assert str(caught.value).endswith(f"use one of {', '.join(known)}")
    assert len(word) < 10 or word not in str(caught.value)


@given(st.text())
def test_an_unknown_label_is_never_repeated(text):
    """Whatever stands in the place of a label, the refusal is the same sentence."""
    with pytest.raises(RecordError) as caught:
        LABELS.parse(f"x{text}", ORDER, "data classification")
    assert str(caught.value) == "unknown data classification: use one of public, internal, confidential, restricted"


def test_without_a_list_any_word_is_a_purpose_or_task():
    """Where the file lists no purposes or task types, every word is one."""
    text = TEXT.replace("purposes: [support, care]\ntask_types: [chat]\n", "")
    parse(Document(text, "labels.yaml")).check_request("public", "anything", "whatever", (), ())


BROKEN = {
    ("version: 1", "version: 2"): "labels.yaml:1: version",
    ("  - name: internal", "  - name: Internal"): "labels.yaml:5: classes.1.name",
    ("  - name: internal", "  - name: public"): "labels.yaml:5: classes.1: public is listed twice",
    ("destination_days: 30}\n  - name: confid", "destination_days: 31}\n  - name: confid"):
        "labels.yaml:6: classes.1.handling.destination_days: internal is handled more freely here than public",
    ("    handling: {destination_days: 30}\n", "    handling: {hosted: false}\n"):
        "classes.2.handling.hosted: confidential is handled more freely",
    ("    handling: {encryption: [tls, loopback, none]", "    handling: {encryption: [tls]"):
        "classes.1.handling.encryption: internal is handled more freely",
    ("encryption: [tls, loopback, none]", "encryption: [rot13]"): "labels.yaml:4: classes.0.handling.encryption.0",
    ("hosted: false", "hostd: false"): "labels.yaml:9: classes.3.handling.hostd: unknown field",
    ("implies: confidential, reg", "implies: secret, reg"):
        "labels.yaml:11: categories.personal.implies: secret is none of the classes",
    ("regulations: [gdpr]", "regulations: [gdrp]"):
        "labels.yaml:11: categories.personal.regulations.0: gdrp is none of the regulations",
    ("  secret: {implies: restricted}\n", ""): "labels.yaml:10: categories: secret is missing: detectors find it",
    ("kinds: {card: restricted}", "kinds: {crad: restricted}"): "labels.yaml:15: kinds.crad: no detector finds it",
    ("kinds: {card: restricted}", "kinds: {card: secret}"): "labels.yaml:15: kinds.card: secret is none of the classes",
    ("kinds: {card: restricted}", "kinds: {card: public}"): "kinds.card: public is lower than confidential",
    ("purposes: [support, care]", "purposes: [care, care]"): "labels.yaml:20: purposes.1: care is listed twice",
    ("task_types: [chat]", "task_types: [chat, chat]"): "labels.yaml:21: task_types.1: chat is listed twice",
    ("names: {purposes: [care]}", "names: {purposes: [cure]}"): "labels.yaml:22: names.purposes.0: cure is none of",
    ("names: {purposes: [care]}", "names: {timeout_s: 0}"): "labels.yaml:22: names.timeout_s",
    ("gdpr: {regions: [eu, uk]}", "gdpr: {region: eu}"): "labels.yaml:17: regulations.gdpr.region: unknown field",
    ("  harmless: {}", "  gdpr: {}"): "labels.yaml:19: not YAML: the key 'gdpr' is given twice",
    ("classes:\n", "classes: []\nothers:\n"): "labels.yaml:2: classes",
}  # fmt: skip


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change[1].strip()[:40])
def test_each_mistake_is_told_with_its_line(change):
    """A mistake in the file is an error at start that names file, line and field."""
    before, after = change
    assert before in TEXT
    with pytest.raises(ConfigError) as caught:
        parse(Document(TEXT.replace(before, after, 1), "labels.yaml"))
    assert BROKEN[change] in str(caught.value)


def test_a_file_is_read(tmp_path: Path):
    """A file gives the same lattice as its text; one that is not there is named."""
    (tmp_path / "labels.yaml").write_text(TEXT)
    assert load(tmp_path / "labels.yaml").config == LABELS.config
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load(tmp_path / "nowhere.yaml")
