"""What detectors look for and what finding it means: one table, read by detection, redaction and the documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Category = Literal["personal", "financial", "secret"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing that detectors find."""

    category: Category
    """The family it belongs to; what rules speak of."""

    severity: int
    """How much harm it does in the wrong hands, from 1; where findings overlap, the more severe one names them."""

    placeholder: str
    """The word that takes its place in redacted text, in square brackets."""

    title: str
    """What it is, for people."""


_C, _R = 1, 2

KINDS: dict[str, Kind] = {
    # Personal data and bank accounts.
    "email": Kind("personal", _C, "EMAIL", "e-mail address"),
    "phone": Kind("personal", _C, "PHONE", "telephone number"),
    "ip_address": Kind("personal", _C, "IP", "IPv4 or IPv6 address"),
    "us_ssn": Kind("personal", _C, "SSN", "US social security number"),
    "uk_nhs": Kind("personal", _C, "NHS", "UK National Health Service number"),
    "spanish_id": Kind("personal", _C, "DNI", "Spanish DNI or NIE"),
    "person": Kind("personal", _C, "PERSON", "name of a person"),
    "place": Kind("personal", _C, "PLACE", "name of a place"),
    "imei": Kind("personal", _C, "IMEI", "mobile equipment identity"),
    "iban": Kind("financial", _C, "IBAN", "international bank account number"),
    # Payment cards and secrets.
    "card": Kind("financial", _R, "CARD", "payment card number"),
    "private_key": Kind("secret", _R, "PRIVATE_KEY", "private key block (PEM, OpenSSH, PGP, PuTTY)"),
    "jwt": Kind("secret", _R, "JWT", "JSON Web Token"),
    "aws_key": Kind("secret", _R, "AWS_KEY", "AWS access key id"),
    "github_token": Kind("secret", _R, "GITHUB", "GitHub token"),
    "openai_key": Kind("secret", _R, "OPENAI", "sk- key (OpenAI and those that copied its form)"),
    "google_key": Kind("secret", _R, "GOOGLE", "Google API key, OAuth token or client secret"),
    "slack_token": Kind("secret", _R, "SLACK", "Slack token or webhook"),
    "vendor_token": Kind(
        "secret", _R, "VENDOR", "token of another maker (GitLab, Stripe, npm, PyPI, Hugging Face, Shopify and others)"
    ),
    "authorization": Kind("secret", _R, "AUTHORIZATION", "bearer or basic authorization"),
    "url_password": Kind("secret", _R, "URL_LOGIN", "credential inside a URL"),
    "assignment": Kind("secret", _R, "HIDDEN", "value of a password, key, secret or token in prose, code or settings"),
}
"""Every kind by its stable name; which class a kind implies, the labels of a deployment say."""

CATEGORIES: Final[tuple[Category, ...]] = ("personal", "financial", "secret")
"""The families that detectors find, the least severe first."""
