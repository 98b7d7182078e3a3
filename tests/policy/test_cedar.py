"""Policy texts: where each policy stands, what its annotations say, and what a text cannot hide."""

from __future__ import annotations

import subprocess
import sys

import pytest
from bad_files import GOOD, LABELS

from evidence.errors import ConfigError
from policy import vocabulary
from policy.cedar import GUARDS, PolicySet, Source, read
from policy.files import Document
from policy.labels import parse
from policy.questions import RouteFacts, Style

ROUTE = RouteFacts("first", "hosted", "acme-ai", "eu", "m", 0, "tls", frozenset({"public"}))
SCHEMA = vocabulary.schema(parse(Document(GOOD[LABELS], "labels.yaml")), [ROUTE])
PERMIT = '@id("{}")\npermit(principal, action, resource);\n'


def policies(*texts: str) -> PolicySet:
    """Read texts, each of a file of its own: `0.cedar`, `1.cedar` and so on."""
    return PolicySet([Source(f"{number}.cedar", text) for number, text in enumerate(texts)], SCHEMA)


def places(*texts: str) -> dict[str, str]:
    """Where each policy stands."""
    return {rule.id: rule.where for rule in policies(*texts).rules.values()}


def fault(*texts: str) -> str:
    """The error of texts that are wrong."""
    with pytest.raises(ConfigError) as error:
        policies(*texts)
    return str(error.value)


def test_each_policy_has_the_line_of_its_first_word():
    """Comments and empty lines before a policy do not count, and each file begins at line 1."""
    text = "// first; not a policy\n\n" + PERMIT.format("a") + "\n\n// more\n" + PERMIT.format("b")
    assert places(text, PERMIT.format("c")) == {"a": "0.cedar:3", "b": "0.cedar:8", "c": "1.cedar:1"}


def test_two_policies_in_one_line():
    """The second policy of a line stands there too."""
    assert places('@id("a") permit(principal, action, resource); @id("b") forbid(principal, action, resource);') == {
        "a": "0.cedar:1",
        "b": "0.cedar:1",
    }


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_strings_and_comments_may_hold_what_ends_a_policy(end):
    """A `;`, a `//` or a quote counts for nothing inside a string or a comment, at any line end."""
    text = end.join([
        '@id("a") // "; not a policy',
        '@about("a; b // c \\" d;")',
        "permit(principal, action, resource)",
        'when { principal.tenant == "x;//\\"y" } // ;',
        ";",
        '@id("b")',
        "forbid(principal, action, resource);// end",
    ])  # fmt: skip
    assert places(text) == {"a": "0.cedar:1", "b": "0.cedar:6"}


def test_a_string_over_several_lines_counts_them():
    """What stands after a text of three lines is still found."""
    first = '@id("a") @about("one\ntwo\nthree")\npermit(principal, action, resource);\n'
    text = first + '@id("b")\nbogus(principal, action, resource);'
    assert fault(text) == "0.cedar:5: not a Cedar policy: invalid policy effect: bogus"


def test_the_order_of_many_policies_is_kept():
    """Among more than ten policies each keeps its own id, line and effect, in what Cedar answers too."""
    texts = [PERMIT.format(f"p{number}") for number in range(25)]
    found = policies("".join(texts[:12]), "".join(texts[12:]))
    assert [rule.id for rule in found.rules.values()] == [f"p{number}" for number in range(25)]
    templates = found.parsed.to_pst().static_policies
    assert {found.rules[key].id: template.annotations["id"] for key, template in templates.items()} == {
        f"p{number}": f"p{number}" for number in range(25)
    }


def test_a_fault_in_one_of_many_is_told_of_that_one():
    """The fourteenth policy is wrong, in the second file; nothing else is told."""
    bad = '@id("bad")\npermit(principal, action, resource)\nwhen {\n  context.clas == Class::"public"\n};\n'
    first, second = ("".join(PERMIT.format(f"{name}{n}") for n in range(6)) for name in "ab")
    assert fault(first, second + bad) == "1.cedar:16: policy bad: attribute `clas` in context not found"


def test_all_faults_are_told_at_once():
    """Two policies that are wrong are two lines, each with its place."""
    bad = '@id("{}")\npermit(principal, action, resource) when {{ context.class == Class::"{}" }};\n'
    told = fault(bad.format("a", "publik"), bad.format("b", "top")).splitlines()
    assert told[0] == "policies that cannot be used:"
    assert [line.strip().partition(": policy ")[0] for line in told[1:]] == ["0.cedar:2", "1.cedar:2"]


def test_the_annotations_are_what_a_rule_says():
    """Redaction, style and authorities are read; a style that is not said is a mask."""
    found = policies(
        '@id("a") @redact("personal, financial") @style("hash") permit(principal, action, resource);'
        '@id("b") @redact("personal") @approval("office") permit(principal, action, resource);'
        '@id("c") @escalate("dpo") forbid(principal, action, resource) unless { context.overridden };'
    )
    rules = {rule.id: rule for rule in found.rules.values()}
    assert (rules["a"].redact, rules["a"].style) == (frozenset({"personal", "financial"}), Style.HASH)
    assert (rules["b"].style, rules["b"].approval, rules["b"].permits) == (Style.MASK, "office", True)
    assert (rules["c"].escalate, rules["c"].permits, rules["c"].redact) == ("dpo", False, frozenset())


def test_what_policies_read_is_known():
    """Every name that a policy reads is told, however it is written, and no other."""
    found = policies(
        '@id("a") permit(principal, action, resource) when { context["purpose"] == Purpose::"support" && '
        '{x: context.risk}.x > 0 } unless { principal has tenant && [principal.id].contains("x") };'
    )
    assert found.reads == {"context.purpose", "context.risk", "principal.tenant", "principal.id"}
    assert not found.names_actors
    assert policies('@id("a") permit(principal == Actor::"x", action, resource);').names_actors


def test_the_digest_is_of_all_that_is_said():
    """Another word is another digest; the name of a file is not part of it."""
    one = policies(PERMIT.format("a"), PERMIT.format("b"))
    assert one.digest == policies(PERMIT.format("a") + PERMIT.format("b")).digest
    assert one.digest != policies(PERMIT.format("a"), PERMIT.format("c")).digest


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    """The built-in policies come first and then each file; what is no policy file is left alone."""
    for name in ("b.cedar", "a.cedar", "notes.txt"):
        (tmp_path / name).write_text(PERMIT.format(name[0]), encoding="utf-8")
    found = read(tmp_path)
    assert [source.name for source in found] == ["(built in)", str(tmp_path / "a.cedar"), str(tmp_path / "b.cedar")]
    assert found[0].text == GUARDS.read_text(encoding="utf-8")


def test_a_folder_that_is_not_there_is_told(tmp_path):
    """A folder that cannot be read is an error with its name."""
    with pytest.raises(ConfigError, match=r"cannot read the policies in .*gone: No such file"):
        read(tmp_path / "gone")


@pytest.mark.parametrize(
    "condition",
    ["(" * 20_000 + "true" + ")" * 20_000, "[" * 20_000, "true" + " && true" * 20_000, "context" + ".a" * 20_000,
     "if true then " * 20_000 + "true", "1" + "+1" * 20_000 + " == 1", "!" * 20_000 + "true"],
    ids=["brackets", "lists", "and", "attributes", "if", "sums", "not"],
)  # fmt: skip
def test_a_policy_without_end_does_not_end_the_process(tmp_path, condition):
    """Cedar's parser has a stack of its own, and a process ends with it; such a policy is refused before."""
    (tmp_path / "main.cedar").write_text(
        f'@id("a")\npermit(principal, action, resource) when {{ {condition} }};', encoding="utf-8"
    )
    program = (
        "import sys\nfrom pathlib import Path\nfrom policy.cedar import PolicySet, read\n"
        "from evidence.errors import ConfigError\n"
        "try: PolicySet(read(Path(sys.argv[1])), '')\nexcept ConfigError as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr[-500:]
    assert ended.stdout.startswith(f"{tmp_path}/main.cedar:1: this policy is nested too deeply or too long")


def test_a_long_list_is_no_policy_without_end():
    """A policy may name thousands of people."""
    names = ", ".join(f'"user-{number}"' for number in range(3000))
    assert policies(f'@id("a") permit(principal, action, resource) when {{ [{names}].contains(principal.id) }};').rules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('when { context.class == Class::"pubic" };', '0.cedar:3: policy a: Class::"pubic" does not exist: use '),
        ('when { context.basis == "contract" };',
         '0.cedar:3: policy a: a Basis is not a text: write Basis::"contract"'),
        ('when { ["tls"].contains(resource.encryption) };',
         '0.cedar:3: policy a: a Encryption is not a text: write Encryption::"tls"'),
        ('when { context.class == Class::"public" }', "0.cedar:3: a `;` is missing at the end of this policy"),
        ('when { context.class == Class::"public" }\n\n// next\n@id("b")\nforbid(principal, action, resource);',
         "0.cedar:3: a `;` is missing at the end of this policy"),
        ('when { context.class == Class::"public" \n\n', "0.cedar:1: not a Cedar policy: "),
    ],
)  # fmt: skip
def test_a_fault_says_what_to_write(text, said):
    """A word that does not exist, a text in place of a word and a missing `;` are told where they are, and how."""
    assert fault(f'@id("a")\npermit(principal, action == Action::"local-call", resource)\n{text}').startswith(said)
