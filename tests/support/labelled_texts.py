# ruff: noqa: RUF001 - look-alike characters are what these texts are about
"""Texts with known contents, written as people write and not from the patterns, and the measure over them.

Published example values throughout (card schemes' test numbers, drama telephone numbers, documentation addresses);
keys are made up, and put together from pieces so that scanners of repositories stay quiet.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from policy.detection.detectors import Detectors


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and what it holds."""

    text: str
    """The text to scan."""

    kind: str
    """The kind of what it holds; "" where it holds nothing."""

    value: str = ""
    """The part that must not survive redaction."""


_BODY = "Zx81Kq0vTn4LpWc7RbYd2MhG5sJf9aUe3oVi"
_JWT = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0."
    "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
)


def _has(kind: str, value: str, text: str) -> Labelled:
    return Labelled(text.replace("{}", value), kind, value)


HOLDING: tuple[Labelled, ...] = (
    # E-mail addresses
    _has("email", "maria.lopez+invoices@mail.example.co.uk", "Please forward it to {}, thanks!"),
    _has("email", "BOB@EXAMPLE.COM", "from: <{}>"),
    _has("email", "o'neill_77@example.ie", "Customer wrote from {}."),
    _has("email", "jörg@müller-straße.de", "Schreib an {} bitte"),
    _has("email", "ana (at) example (dot) org", "you can reach ana: {}"),
    _has("email", "sam at example dot com", "write to sam, it is {} I think"),
    _has("email", "kim[at]example.net", "spam-safe: {}"),
    _has("email", "lee＠example．com", "{} にご連絡ください"),
    _has("email", "wang@example.cn", "我的邮箱是{}，谢谢"),
    _has("email", "jane.doe@\nexample.com", "Kind regards, {}"),
    _has("email", "jane%40example.com", "https://shop.example/reset?user={}&step=2"),
    _has("email", "a.b@example.museum", "mailto:{}?subject=hello"),
    _has("email", "tom @ example.com", "his address is {} as far as I know"),
    _has("email", "x@y.io", '{"to":"{}"}'),
    # Telephone numbers
    _has("phone", "+44 20 7946 0018", "ring the London office on {} before noon"),
    _has("phone", "+1-202-555-0147", "Tel {}"),
    _has("phone", "(212) 555-0186", "my cell is {} ok?"),
    _has("phone", "212.555.0186", "Fax: {}"),
    _has("phone", "020 7946 0991", "UK callers: {}."),
    _has("phone", "07700 900461", "she's on {}"),
    _has("phone", "+33 1 99 00 12 34", "Appelez le {} svp"),
    _has("phone", "06 39 98 12 34", "mon numero : {}"),
    _has("phone", "+49 (0)30 23125 014", "Büro: {}"),
    _has("phone", "0171/3920014", "Handy {}"),
    _has("phone", "+34 612 34 56 78", "llámame al {}"),
    _has("phone", "612345678", "mi móvil es {}"),
    _has("phone", "+86 138 0013 8000", "电话：{}"),
    _has("phone", "13800138000", "我的手机(phone)是{}"),
    _has("phone", "+91 98765-43210", "whatsapp {}"),
    _has("phone", "0044 131 496 0223", "dial {} from abroad"),
    _has("phone", "+61 2 5550 1234", "Sydney desk {}"),
    _has("phone", "555-0123", "call me at {} tonight"),
    _has("phone", "＋８１ ３ ５５５０ １２３４", "電話 {}"),
    _has("phone", "+12025550147", "{}"),
    _has("phone", "(11) 91234-5678", "fale comigo: {}"),
    _has("phone", "415–555–0132", "office {}, ask for Lou"),
    # Payment cards
    _has("card", "4242 4242 4242 4242", "charge {} exp 04/29 cvc 123"),
    _has("card", "4242424242424242", "number={};exp=0429"),
    _has("card", "5555-5555-5555-4444", "mc {} please"),
    _has("card", "3782 822463 10005", "my amex, {}, was declined"),
    _has("card", "6011.1111.1111.1117", "Discover: {}"),
    _has("card", "3056 930902 5904", "diners club {}"),
    _has("card", "4000 0566\n5566 5556", "the card is\n{}\nthanks"),
    _has("card", "5105 1051 05\n10 5100", "wrapped: {} end"),
    _has("card", "4 0 1 2 8 8 8 8 8 8 8 8 1 8 8 1", "digit by digit: {}"),
    _has("card", "４０１２８８８８８８８８１８８１", "カード番号は{}です"),
    _has("card", "4012\u00a08888\u00a08888\u00a01881", "Karte {} gesperrt"),
    _has("card", "4012\u200b8888\u200b8888\u200b1881", "card {} !"),
    _has("card", "4012_8888_8888_1881", "id {} in the export"),
    # Bank accounts
    _has("iban", "GB29 NWBK 6016 1331 9268 19", "pay to {} by Friday"),
    _has("iban", "de89370400440532013000", "iban {} (girokonto)"),
    _has("iban", "FR14 2004 1010 0505 0001 3M02 606", "RIB: {}"),
    _has("iban", "nl91-abna-0417-1643-00", "my account: {}"),
    _has("iban", "ES91 2100 0418\n4502 0005 1332", "cuenta {}"),
    _has("iban", "BE68.5390.0754.7034", "rekening {}"),
    _has("iban", "MT84MALT011000012345MTLCAST001S", "Malta: {}"),
    # National numbers
    _has("us_ssn", "219-09-9999", "ssn is {}"),
    _has("us_ssn", "219 09 9999", "applicant {} born in Ohio"),
    _has("us_ssn", "219099999", "Social Security Number: {}"),
    _has("us_ssn", "219–09–9999", "id {}"),
    _has("uk_nhs", "943 476 5919", "NHS number {}"),
    _has("uk_nhs", "4010232137", "patient nhs no. {} admitted"),
    _has("uk_nhs", "401-023-2137", "see {} in the ward list"),
    _has("spanish_id", "12345678Z", "DNI {}"),
    _has("spanish_id", "12.345.678-z", "con dni {} y domicilio en Lugo"),
    _has("spanish_id", "X-1234567-L", "NIE: {}"),
    _has("imei", "490154203237518", "IMEI {}"),
    _has("imei", "49-015420-323751-8", "phone label says {}"),
    # Network addresses
    _has("ip_address", "203.0.113.42", "failed login from {}"),
    _has("ip_address", "198.51.100.7", "host={}:8443"),
    _has("ip_address", "203[.]0[.]113[.]9", "ioc: {}"),
    _has("ip_address", "2001:db8:85a3::8a2e:370:7334", "peer [{}]:443"),
    _has("ip_address", "fe80::1", "gateway {} on the lan"),
    _has("ip_address", "2001:DB8:0:0:0:0:2:1", "AAAA {}"),
    # Secrets
    _has("assignment", "hunter2", "the wifi password is {} btw"),
    _has("assignment", "Tr0ub4dor&3", "pwd={};Server=db"),
    _has("assignment", "correct horse battery staple", 'passphrase: "{}"'),
    _has("assignment", "q9J7vR2mX5tB8wL1", "API_KEY={}"),
    _has("assignment", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzz", "aws_secret_access_key = {}"),
    _has("assignment", "sommer2024!", "Mein Passwort: {}"),
    _has("assignment", "7f3a9c1e5b8d2f60a4c7", "client_secret: '{}',"),
    _has("assignment", "Vergessen#99", '{"user":"lu","password":"{}"}'),
    _has("assignment", "s3cr3t-p4ss", "export DB_PASSWORD={}"),
    _has("assignment", "zebra-lamp-42", "Your temporary password for the portal is {}."),
    _has("assignment", "Lavendel!8", "<smtp-password>{}</smtp-password>"),
    _has("assignment", "b7Qe2-Zk9x", "psql --password {} -h db"),
    _has("assignment", "Tulpe_2031", "mot de passe : {}"),
    _has("assignment", "un1c0rn-tea", "user: kim pass: {}"),
    _has("aws_key", "AKIA" + "QWERTY7UIOPAS2DF", "key id {} leaked"),
    _has("aws_key", "akia" + "qwerty7uiopas2df", "lower-cased by the form: {}"),
    _has("github_token", "ghp_" + _BODY, "git clone https://{}@github.com/x/y"),
    _has("github_token", "github_pat_" + _BODY[:22] + "_" + _BODY, "use {}"),
    _has("github_token", "ghp_" + _BODY[:18] + "\n" + _BODY[18:], "token\n{}\nrevoke it"),
    _has("openai_key", "sk-proj-" + _BODY + "_" + _BODY, "OPENAI {} works"),
    _has("openai_key", "sk-" + _BODY, "with the key {} I get 401"),
    _has("google_key", "AIza" + "SyD4k2Lm9Qw7Er5Ty1Ui3Op6As8Df0Gh2Jk", "maps?key={}"),
    _has("slack_token", "xoxb-" + "123456789012-1234567890123-" + _BODY[:24], "bot {}"),
    _has("vendor_token", "glpat-" + _BODY[:20], "gitlab {}"),
    _has("vendor_token", "acme_live_" + _BODY, "our partner's key {} must not leak"),
    _has("vendor_token", "shpat_" + "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "shop {}"),
    _has("vendor_token", "sk_live_" + _BODY[:24], "stripe {}"),
    _has("jwt", _JWT, "cookie: session={}; path=/"),
    _has("jwt", _JWT[:60] + "\n    " + _JWT[60:], "curl -H 'x: {}'"),
    _has("authorization", "mF_9.B5f-4.1JqM7aB2c", "Authorization: Bearer {}"),
    _has("authorization", "QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "authorization: basic {}"),
    _has("url_password", "pa55word", "postgresql://app:{}@db.internal:5432/app"),
    _has(
        "private_key",
        "-----BEGIN " + "PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END " + "PRIVATE KEY-----",
        "here:\n{}\nsorry",
    ),
    _has("private_key", "-----begin " + "openssh private key-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU", "cut off: {}"),
)
"""Texts that hold one thing each, by kind."""

CLEAN: tuple[Labelled, ...] = tuple(
    Labelled(text, "")
    for text in (
        "Order 1234567890 shipped on 2024-01-15 and arrives 2024-01-18.",
        "Invoice no. 20240115-0042, total 1,234.56 EUR, due 15.02.2024.",
        "ISBN 978-0-306-40615-7 and ISBN 0-306-40615-2 are the same book.",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 fixes it",
        "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "request 550e8400-e29b-41d4-a716-446655440000 timed out after 30000 ms",
        "Upgrade from version 10.2.14.3 to 10.2.15.0 before March.",
        "driver 551.86.0.12-beta, firmware v1.2.3.4",
        "pip install torch==2.4.0.1 numpy>=1.26.4",
        "The price went from $1,299.99 to $1,499.99, that is 200.00 more.",
        "Chrome/120.0.6099.109 Safari/537.36 on 3840x2160",
        "Meet at 12:30:45 or 18:05:10, room 4-112.",
        "MAC address aa:bb:cc:dd:ee:ff on port 443",
        "ratio 1:2:3:4, score 3:2, Psalm 119:105",
        "std::vector<int> and face::bead are C++ names",
        "The password must be at least 12 characters long.",
        "password: required, min length 8",
        "Forgot your password? Reset the password here.",
        "login(username=username, password=password)",
        'password = os.environ["DB_PASSWORD"]',
        "api_key: ${API_KEY}  # set me",
        "secret = config.get_secret(name)",
        "max_tokens: 4096, token count: 128000",
        "The token is refreshed every hour; the secret is patience.",
        "token=<your-token-here>",
        "Use bearer authentication and basic understanding of HTTP.",
        "The bearer of this letter is my brother.",
        "logo@2x.png and icon@3x.jpg go to assets",
        "git clone git@github.com:apache/kafka.git",
        "@app.route('/users') and @pytest.mark.slow",
        "Follow @example on social media; rate: 3 @ 4.50 each.",
        "Look at the dot com bubble; meet me at noon at the station.",
        "Population: 331 449 281 people, GDP 25 462 700 million",
        "coordinates 48.858370, 2.294481 and 40.712776, -74.005974",
        "π is 3.14159265358979 and e is 2.71828182845904",
        "UPC 036000291452, EAN 4006381333931",
        "tracking 1Z999AA10123456784 is with the courier",
        "Flight LH 1234 leaves gate 22 at 09:15, seat 14C, booking X7KQ2P",
        "timestamps 1700000000 and 1700000000123",
        "0x7fffffffe4a0: mov rax, 0x1234567890abcdef",
        "Ticket SUP-20931, case 00012345, ref 2023/11/00456",
        "Years 1914-1918 and 1939-1945, pages 100-200-300",
        "lottery: 4 8 15 16 23 42",
        "at 6 years it produces 50 kilograms of nuts",
        "scores 90 85 77 93 88 79 95 81 in eight tests",
        "sk-learn is not scikit-learn; sk-based-routing-for-long-names",
        "AKIA is a prefix; ghp_ and xoxb- are prefixes too.",
        "loopback is 127.0.0.1, ::1, and 0.0.0.0 binds all; mask 255.255.255.0",
        "section 4.2.1.3 refers to chapter 2.1.1.4",
        "eyJ is how many encoded JSON objects begin",
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkq\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJB\n-----END PUBLIC KEY-----",
        "card 4242 4242 4242 4241 fails its check digit",
        "account GB29 NWBK 6016 1331 9268 18 fails its check digits",
        "DNI 12345678A has the wrong letter",
        "ssn 000-12-3456 and 666-45-6789 are never issued",
        "2024-03-05 14:22:07,123 INFO 42 records in 17 ms",
        "matrix 100 200 300 400 500 600 700 800",
        "http://localhost:8080/a/b?x=1&y=2#z",
        "cron 0 12 * * 1-5; chmod 0755; umask 0022",
        "The 2020 census counted 331,449,281; the 2010 one 308,745,538.",
        "started 2024-03-05T14:22:07.123456Z, ended 14:22:08.654321Z",
        "pass: 4212 fail: 17 skip: 3; pw is short for power",
        "assert password > minimum_length and token -> string",
        "cache_9fceb02d0ae598e95dc970b74767f19372d61af8.tar and app-3f786850e387550fdab836ed7e6dc881de23001b",
        "thisIsAVeryLong_camelCaseIdentifierInSomeProgramWithManyWords2Go",
        "call 2024-01-15 a success; call the function 3 times with 100 items",
    )
)
"""Texts that hold nothing, but look as if they did."""

SAMPLES: tuple[str, ...] = (
    (
        "A baker makes 144 rolls at dawn and sells them for $3 each; by noon 120 are gone. How much did she earn, "
        "and how many rolls are left if she gives 6 to each of her 3 neighbours?"
    ),
    (
        "Rewrite this paragraph so that a ten-year-old understands it: photosynthesis turns light, water and "
        "carbon dioxide into sugar and oxygen, and nearly all life depends on it."
    ),
    (
        "A train leaves at 07:45 and travels 312 km at 96 km/h. It waits 12 minutes in between. When does it "
        "arrive? 312/96 = 3.25 hours, so 3 h 15 min + 12 min = 3 h 27 min; it arrives at 11:12."
    ),
    (
        "Summarise the minutes: 14 people came, 9 voted for moving the fair from 12 May to 2 June, 5 against. The "
        "budget goes up from 2,400 to 3,150 euros, of which 800 are for the stage."
    ),
    (
        "Write a polite reply that declines the invitation, thanks the host, and proposes lunch in the second week "
        "of October."
    ),
    ("If 5 machines take 5 minutes to make 5 widgets, how long do 100 machines take to make 100 widgets? 5 minutes."),
)
"""Ordinary requests, for false alarms and for speed."""


@dataclass(frozen=True, slots=True)
class Score:
    """How detection did for one kind."""

    found: int
    """Texts whose value was covered whole, under the right kind."""

    of: int
    """Texts that hold one."""

    wrong: int
    """Findings of this kind where there is nothing, or something else."""


def measure(detectors: Detectors) -> dict[str, Score]:
    """Score every kind over all labelled texts."""
    found: Counter[str] = Counter()
    of: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for labelled in HOLDING + CLEAN:
        of[labelled.kind] += bool(labelled.kind)
        start = labelled.text.find(labelled.value)
        end = start + len(labelled.value)
        hit = False
        for finding in detectors.scan(labelled.text):
            if finding.kind == labelled.kind and finding.start <= start and end <= finding.end:
                hit = True
            elif not labelled.kind or finding.end <= start or finding.start >= end:
                wrong[finding.kind] += 1
        found[labelled.kind] += hit
    return {kind: Score(found[kind], of[kind], wrong[kind]) for kind in sorted((of + wrong).keys()) if kind}


def report(detectors: Detectors) -> str:
    """Give the scores as a table in Markdown."""
    scores = measure(detectors)
    lines = ["| kind | found | of | false alarms |", "| --- | --- | --- | --- |"]
    lines += [f"| {kind} | {score.found} | {score.of} | {score.wrong} |" for kind, score in scores.items()]
    found, of = sum(score.found for score in scores.values()), sum(score.of for score in scores.values())
    lines.append(
        f"| all | {found} | {of} | {sum(score.wrong for score in scores.values())} in {len(CLEAN)} near misses |"
    )
    return "\n".join(lines)
