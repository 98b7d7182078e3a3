"""Deployments with one fault each, and what has to be said of it: labels, policies, routes, and how they fit together.

`GOOD` holds the files of a deployment that is right. A case names a file, an edit of it, and how the error begins after
the file's path: the line and the words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.routes import Endpoint

LABELS = "policy/labels.yaml"
POLICY = "policy/main.cedar"
RETENTION = "policy/retention.yaml"
ROUTES = "routes.yaml"

ENDPOINTS = {
    "hosted": Endpoint("hosted", "acme-ai", "tls"),
    "plain": Endpoint("plain", "plain-ai", "none"),
    "local": Endpoint("local", "triton", "loopback"),
}
"""What the settings say of the places where models answer."""

GOOD: Mapping[str, str] = {
    LABELS: """\
version: 1
classes:
  - name: public
    handling: {hosted: true, encryption: [tls, loopback, none], destination_days: 30}
  - name: internal
    handling: {hosted: true, encryption: [tls, loopback], destination_days: 3}
  - name: secret
    handling: {hosted: false}
categories:
  personal: {implies: internal, regulations: [gdpr]}
  financial: {implies: internal}
  secret: {implies: secret}
kinds:
  card: secret
regulations:
  gdpr: {regions: [eu]}
purposes: [support, research]
task_types: [chat, summary]
names:
  purposes: [research]
""",
    POLICY: """\
// What may happen.
@id("inside")
permit(principal, action == Action::"local-call", resource);

@id("outside")
@redact("personal")
@style("mask")
permit(principal, action == Action::"model-call", resource)
when { context.class == Class::"public" &&
       context.purpose == Purpose::"support" };

@id("keeps-nothing")
@approval("office")
forbid(principal, action in Action::"cross", resource)
when { resource.retentionDays > 0 }
unless { context.approved };
""",
    RETENTION: """\
version: 1
rules:
  - {classes: ["*"], purposes: ["*"], payload: none, pseudonym_days: 0}
""",
    ROUTES: """\
version: 1
policy_id: test
routes:
  - name: first
    placement: hosted
    endpoint: hosted
    model: m
    region: eu
    capabilities: [chat]
    classes: [public, internal]
    purposes: [support]
    max_tokens: 10
    timeout_s: 5
    retention_days: 1
    contract: "1.1"
    price: {input_per_million_usd: 1, output_per_million_usd: 1}
    answer: {forbid: [personal], action: drop}
    context: useful
    fallback: [second, inside]
  - name: second
    placement: hosted
    endpoint: hosted
    model: m
    region: eu
    capabilities: [chat]
    classes: [public]
    purposes: [support]
    max_tokens: 10
    timeout_s: 5
    retention_days: 0
    contract: "1.1"
    price: {input_per_million_usd: 1, output_per_million_usd: 1}
    answer: {forbid: [personal, secret], action: refuse}
    context: required
    on_ambiguous: stop
  - name: inside
    placement: local
    endpoint: local
    model: m
    region: eu
    capabilities: ["*"]
    classes: [public, internal, secret]
    purposes: ["*"]
    max_tokens: 10
    timeout_s: 5
    price: {input_per_million_usd: 0, output_per_million_usd: 0}
""",
}
"""A deployment that is right."""


@dataclass(frozen=True, slots=True)
class BadFile:
    """A deployment with one fault."""

    name: str
    """What is wrong."""
    file: str
    """Where."""
    old: str
    """A part of the good file; empty stands for all of it, and its last occurrence counts where there are several."""
    new: str | bytes
    """What stands in its place."""
    said: str
    """How the error begins after the file's path."""
    words: str = ""
    """What else is in it."""

    def write(self, folder: Path) -> Path:
        """Write the deployment; give the faulty file."""
        write(folder)
        path = folder / self.file
        if isinstance(self.new, bytes):
            path.write_bytes(self.new)
        else:
            text = GOOD[self.file]
            assert self.old in text, f"{self.name}: the good file has no {self.old!r}"
            before, _, after = text.rpartition(self.old) if self.old else ("", "", "")
            path.write_text(before + self.new + after, encoding="utf-8", errors="surrogatepass", newline="")
        return path


def write(folder: Path) -> None:
    """Write the deployment that is right."""
    for name, text in GOOD.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _of(file: str, *cases: tuple[str, ...]) -> tuple[BadFile, ...]:
    return tuple(BadFile(case[0], file, *case[1:]) for case in cases)


_YAML = _of(
    LABELS,
    ("nothing in it", "", "", ":1: an empty file is no list of labels"),
    ("comments alone", "", "# nothing\n", ":1: an empty file is no list of labels"),
    ("a list", "", "- a\n", ":1: ", "must be an object"),
    ("one word", "", "labels\n", ":1: ", "must be an object"),
    ("a bracket that is left open", "purposes: [support, research]", "purposes: [support", ":18: not YAML: "),
    ("a tab", "  personal:", "\tpersonal:", ":10: not YAML: ", "'\\t'"),
    ("two documents", "kinds:\n", "---\nkinds:\n", ":13: not YAML: "),
    ("an alias", "purposes: [support, research]", "purposes: *words", ":17: not YAML: aliases are not used"),
    ("a merge", "  card: secret", "  <<: {card: secret}", ":14: not YAML: "),
    ("a key given twice", "regulations:\n", "kinds:\n  card: secret\nregulations:\n", ":15: not YAML: the key 'kinds'"),
    ("a key that is a number", "  card: secret", "  1: secret", ":14: not YAML: a key must be a word"),
    ("a key that is a list", "  card: secret", "  [card]: secret", ":14: not YAML: a key must be a word"),
    ("a tag of Python's", "card: secret", "card: !!python/name:os.system x", ":14: not YAML: ", "tag"),
    ("a day that is none", "card: secret", "card: 2026-13-45", ":14: not YAML: this is no value"),
    ("a number that is none", "card: secret", "card: 0x_", ":14: not YAML: this is no value"),
    ("a number with too many digits", "version: 1", f"version: {'9' * 5000}", ":1: not YAML: this is no value"),
    ("nested without end", "card: secret", f"card: {'[' * 3000}", ":14: not YAML: nested too deeply"),
    ("a control character", "card: secret", "card: se\x07cret", ":14: not YAML: the character U+0007 is not allowed"),
    ("a long file", "", "# " + "x" * (5 << 20), ": 5242882 bytes are too many for a list of labels"),
)

_ENCODING = (
    BadFile("labels in Latin-1", LABELS, "", b"version: 1\n# caf\xe9\n", ":2: not UTF-8"),
    BadFile("labels in UTF-16", LABELS, "", "version: 1\n".encode("utf-16"), ":1: not UTF-8"),
    BadFile(
        "policies in Latin-1", POLICY, "", b'@id("a")\npermit(principal, action, resource);// \xe9\n', ":2: not UTF-8"
    ),
    BadFile("routes that are a picture", ROUTES, "", b"\x89PNG\r\n\x1a\n\x00\x00", ":1: not UTF-8"),
)

_LABELS = _of(
    LABELS,
    ("a later version", "version: 1", "version: 2", ":1: version: "),
    ("no version", "version: 1\n", "", ":1: version: is missing"),
    ("an unknown field", "kinds:\n", "kind:\n", ":13: kind: unknown field"),
    ("an unknown field of a class", "- name: public", "- name: public\n    colour: red",
     ":4: classes.0.colour: unknown field"),
    ("no classes", "", "version: 1\nclasses: []\ncategories: {}\n", ":2: classes: "),
    ("a class in upper case", "name: internal", "name: Internal", ":5: classes.1.name: "),
    ("a class twice", "name: internal", "name: public", ":5: classes.1: public is listed twice"),
    ("a class without a name", "- name: internal\n    handling", "- handling", ":5: classes.1.name: is missing"),
    (
        "an unknown way of encryption", "[tls, loopback], d", "[ssl, loopback], d",
        ":6: classes.1.handling.encryption.0: ",
    ),
    (
        "handled more freely: encryption", "encryption: [tls, loopback, none]", "encryption: [tls]",
        ":6: classes.1.handling.encryption: internal is handled more freely here than public",
    ),
    (
        "handled more freely: days", "destination_days: 30", "destination_days: 2",
        ":6: classes.1.handling.destination_days: internal is handled more freely",
    ),
    (
        "handled more freely: leaves", "public\n    handling: {hosted: true,", "public\n    handling: {hosted: false,",
        ":6: classes.1.handling.hosted: internal is handled more freely",
    ),
    ("days below none", "destination_days: 3}", "destination_days: -1}", ":6: classes.1.handling.destination_days: "),
    ("an unknown class of a category", "financial: {implies: internal}", "financial: {implies: secrets}",
     ":11: categories.financial.implies: secrets is none of the classes"),
    ("an unknown regulation", "regulations: [gdpr]", "regulations: [gpdr]",
     ":10: categories.personal.regulations.0: gpdr is none of the regulations"),
    ("a category that detectors find is missing", "  financial: {implies: internal}\n", "",
     ":9: categories: financial is missing"),
    ("a category that says nothing", "secret: {implies: secret}", "secret: {}",
     ":12: categories.secret.implies: is missing"),
    ("an unknown kind", "card: secret", "cart: secret", ":14: kinds.cart: no detector finds it"),
    ("a kind of an unknown class", "card: secret", "card: top", ":14: kinds.card: top is none of the classes"),
    ("a kind below its category", "card: secret", "card: public", ":14: kinds.card: public is lower than internal"),
    ("a purpose twice", "[support, research]", "[support, support]", ":17: purposes.1: support is listed twice"),
    ("a task type twice", "[chat, summary]", "[chat, chat]", ":18: task_types.1: chat is listed twice"),
    ("names for an unknown purpose", "  purposes: [research]", "  purposes: [reserach]",
     ":20: names.purposes.0: reserach is none of the purposes"),
    ("no time for names", "  purposes: [research]", "  timeout_s: 0", ":20: names.timeout_s: "),
)  # fmt: skip

_POLICIES = _of(
    POLICY,
    ("no policy", "", "// nothing yet\n", ":1: no policy is in this file"),
    ("a word that is no effect", 'permit(principal, action == Action::"model-call"', "allow(principal, action",
     ":5: not a Cedar policy: ", "allow"),
    ("an operator that is none", "context.class == Class", "context.class = Class", ":5: not a Cedar policy: "),
    ("a semicolon that is missing", 'resource);\n\n@id("outside")', 'resource)\n\n@id("outside")',
     ":3: a `;` is missing at the end of this policy"),
    ("a quote that is left open", 'Purpose::"support"', 'Purpose::"support', ":5: not a Cedar policy: "),
    ("a bracket that is left open", "unless { context.approved };", "unless { context.approved ;",
     ":12: not a Cedar policy: "),
    ("a template", 'permit(principal, action == Action::"local-call"',
     'permit(principal == ?principal, action == Action::"local-call"', ":2: templates are not used here"),
    ("nested without end", "context.approved", "(" * 5000 + "context.approved" + ")" * 5000,
     ":12: this policy is nested too deeply or too long"),
    ("a chain without end", "context.approved", "context.approved" + " && true" * 5000,
     ":12: this policy is nested too deeply or too long"),
    ("no @id", '@id("inside")\n', "", ":2: a policy needs an @id"),
    ("an @id with spaces", '@id("inside")', '@id("in side")', ":2: a policy needs an @id"),
    ("an @id twice", '@id("outside")', '@id("inside")', ":5: policy inside stands at ", "main.cedar:2 already"),
    ("an @id of a built-in policy", '@id("outside")', '@id("no_consent")',
     ":5: policy no_consent stands at (built in):"),
    ("an annotation twice", '@style("mask")', '@style("mask") @style("hash")', ":5: not a Cedar policy: ", "@style"),
    ("an unknown annotation", '@style("mask")', '@stlye("mask")', ":5: policy outside: unknown annotation @stlye"),
    ("an unknown style", '@style("mask")', '@style("blur")', ":5: policy outside: @style is one of pseudonym"),
    ("a style of nothing", '@redact("personal")\n', "", ":5: policy outside: @style is one of "),
    ("what no detector finds", '@redact("personal")', '@redact("health")', ":5: policy outside: @redact: health"),
    ("nothing to take out", '@redact("personal")', '@redact("personal, ")', ":5: policy outside: @redact: (nothing)"),
    ("a forbid that takes out", '@approval("office")', '@approval("office") @redact("personal")',
     ":12: policy keeps-nothing: @redact belongs to a permit"),
    ("nobody to approve", '@approval("office")', '@approval("")',
     ":12: policy keeps-nothing: @approval names the authority"),
    ("a word that nobody gives", '@approval("office")\n', "",
     ":12: policy keeps-nothing: it reads context.approved, and no @approval says whose word that is"),
    ("a word that changes nothing", "unless { context.approved }", "",
     ":12: policy keeps-nothing: a forbid with @approval needs `unless { context.approved }`"),
    ("approved and overridden", '@style("mask")', '@style("mask") @approval("office") @escalate("dpo")',
     ":5: policy outside: @approval and @escalate exclude each other"),
    ("an unknown class", 'Class::"public"', 'Class::"publik"', ":9: policy outside: ", "publik"),
    ("an unknown purpose", 'Purpose::"support"', 'Purpose::"suport"', ":10: policy outside: ", "suport"),
    ("an unknown action", 'Action::"model-call"', 'Action::"model"', ":8: policy outside: ", 'Action::"model"'),
    ("an unknown kind of entity", 'Class::"public"', 'Klass::"public"', ":9: policy outside: ", "Klass"),
    ("an unknown attribute", "context.purpose", "context.porpoise", ":10: policy outside: ", "porpoise"),
    ("an unknown attribute of a route", "resource.retentionDays", "resource.retention", ":15: policy keeps-nothing: "),
    ("a number compared with a word", "retentionDays > 0", 'retentionDays > "0"', ":12: policy keeps-nothing: "),
    ("a comparison that can never hold", 'context.class == Class::"public"', 'context.class == Purpose::"support"',
     ":5: policy outside: context.class is compared with a Purpose, and is a Class: that never holds"),
    ("a word of another kind first", "resource.retentionDays > 0", 'Purpose::"support" == resource.region',
     ":12: policy keeps-nothing: resource.region is compared with a Purpose, and is a Region"),
    ("a word of another kind in a list", "resource.retentionDays > 0", 'resource.region in [Class::"public"]',
     ":12: policy keeps-nothing: resource.region is compared with a Class, and is a Region"),
    ("a route that does not exist", "resource.retentionDays > 0", 'resource == Route::"gone"',
     ':12: policy keeps-nothing: Route::"gone" is none of the routes first, second, inside'),
)  # fmt: skip

_ROUTES = _of(
    ROUTES,
    ("no routes", "", "version: 1\npolicy_id: test\nroutes: []\n", ":3: routes: "),
    ("no name of the policy", "policy_id: test\n", "", ":1: policy_id: is missing"),
    ("a name twice", "name: second", "name: first", ":20: routes.1.name: another route is called first too"),
    ("a route called stop", "name: inside", "name: stop", ":36: routes.2.name: no route can be called `stop`"),
    ("a name with a slash", "name: inside", "name: in/side", ":36: routes.2.name: "),
    ("an unknown placement", "placement: local", "placement: here", ":37: routes.2.placement: "),
    ("an unknown field", 'model: m\n    region: eu\n    capabilities: ["*"]',
     'modell: m\n    model: m\n    region: eu\n    capabilities: ["*"]', ":39: routes.2.modell: unknown field"),
    ("no price", "    price: {input_per_million_usd: 0, output_per_million_usd: 0}\n", "",
     ":36: routes.2.price: is missing"),
    ("a price below nothing", "input_per_million_usd: 0,", "input_per_million_usd: -1,",
     ":46: routes.2.price.input_per_million_usd: "),
    ("a price without end", "input_per_million_usd: 0,", "input_per_million_usd: .inf,",
     ":46: routes.2.price.input_per_million_usd: "),
    ("no time", "timeout_s: 5\n    price: {input_per_million_usd: 0",
     "timeout_s: 0\n    price: {input_per_million_usd: 0",
     ":45: routes.2.timeout_s: "),
    ("no tokens", "max_tokens: 10\n    timeout_s: 5\n    price: {input_per_million_usd: 0",
     "max_tokens: 0\n    timeout_s: 5\n    price: {input_per_million_usd: 0", ":44: routes.2.max_tokens: "),
    ("a class twice", "[public, internal, secret]", "[public, internal, public]", ":42: routes.2.classes: "),
    ("a class that is none", "[public, internal, secret]", "[public, internal, top]",
     ":42: routes.2.classes.2: top is none"),
    ("a class without those below", "[public, internal, secret]", "[internal, secret]",
     ":42: routes.2.classes: public is missing"),
    ("a purpose that is none", "purposes: [support]\n    max_tokens: 10\n    timeout_s: 5\n    retention_days: 1",
     "purposes: [support, suport]\n    max_tokens: 10\n    timeout_s: 5\n    retention_days: 1",
     ":11: routes.0.purposes.1: suport is none of the labels"),
    ("a task that is none", 'capabilities: ["*"]', "capabilities: [chatt]",
     ":41: routes.2.capabilities.0: chatt is none"),
    ("an endpoint that is not set", "endpoint: local", "endpoint: lokal", ":38: routes.2.endpoint: endpoint lokal",
     "WAYBILL_ENDPOINTS__LOKAL__KIND"),
    ("no version of the contract", '    retention_days: 0\n    contract: "1.1"\n', "    retention_days: 0\n",
     ":20: routes.1: a hosted route says by which version of the waybill it goes"),
    ("a category that no answer can hold", "forbid: [personal, secret]", "forbid: [personal, health]",
     ":33: routes.1.answer.forbid.1: "),
    ("a fallback that is none", "[second, inside]", "[third]", ":19: routes.0.fallback.0: ", "is no other route"),
    ("a fallback to itself", "[second, inside]", "[second, first]", ":19: routes.0.fallback.1: ", "is no other route"),
    ("a fallback twice", "[second, inside]", "[second, second]", ":19: routes.0.fallback: "),
    # a fallback that widens, in each dimension
    ("widens: placement", "price: {input_per_million_usd: 0, output_per_million_usd: 0}\n",
     "price: {input_per_million_usd: 0, output_per_million_usd: 0}\n    fallback: [first]\n",
     ":47: routes.2.fallback.0: route inside: fallback first would widen `placement`"),
    ("widens: region", "region: eu\n    capabilities: [chat]\n    classes: [public]\n",
     "region: us\n    capabilities: [chat]\n    classes: [public]\n", ":19: routes.0.fallback.0: ", "`region`"),
    ("widens: retention", "retention_days: 0", "retention_days: 2", ":19: routes.0.fallback.0: ", "`retention_days`"),
    ("widens: what answers may hold", "forbid: [personal, secret]", "forbid: [secret]", ":19: routes.0.fallback.0: ",
     "`answer.forbid`"),
    ("widens: what happens to answers", "action: refuse", "action: mask", ":19: routes.0.fallback.0: ",
     "`answer.action`"),
    ("widens: a second disclosure", "on_ambiguous: stop", "on_ambiguous: resend", ":19: routes.0.fallback.0: ",
     "`on_ambiguous`"),
    ("widens: contract", 'contract: "1.1"', 'contract: "1.0"', ":19: routes.0.fallback.0: ", "`contract`"),
    ("widens: context", "context: required", "context: all", ":19: routes.0.fallback.0: ", "`context`"),
    ("widens: classes", "classes: [public]\n", "classes: [public, internal, secret]\n", ":19: routes.0.fallback.0: ",
     "`classes`"),
    ("widens: purposes", "    purposes: [support]\n", "    purposes: [support, research]\n",
     ":19: routes.0.fallback.0: ", "`purposes`"),
    ("widens: encryption", "endpoint: hosted\n", "endpoint: plain\n", ":19: routes.0.fallback.0: ", "`encryption`"),
)  # fmt: skip

_RETENTION = _of(
    RETENTION,
    ("retention of an unknown class", 'classes: ["*"]', "classes: [top]", ":3: rules.0.classes.0: top is none of the"),
    (
        "retention without a rule for a purpose",
        'purposes: ["*"]',
        "purposes: [support]",
        ":2: rules: public has no rule",
    ),
)

CASES: tuple[BadFile, ...] = (*_YAML, *_ENCODING, *_LABELS, *_POLICIES, *_ROUTES, *_RETENTION)
"""All of them."""
