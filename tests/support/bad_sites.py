"""Lists of sites that are wrong, each with the line and the words that its error must have."""

from __future__ import annotations

from evidence_stores import OneKey

from evidence.federation.columns import REQUIRED

KEY = OneKey("edge-1").signer.vkey
OTHER = OneKey("edge-2").signer.vkey
NEEDED = ", ".join(sorted(REQUIRED))
GRANT = f'{{to: hq, classes: [public], purposes: ["*"], retention_days: 1, columns: [{NEEDED}]}}'
SITE = f"  - name: edge-1\n    region: eu\n    location: copies\n    key: {KEY}\n"
HQ = "  - {name: hq, region: eu}\n"


def sites(site: str = SITE, *grants: str) -> str:
    """Give a file with one site that keeps copies, and hq."""
    leaves = "    leaves:\n" + "".join(f"      - {grant}\n" for grant in grants) if grants else ""
    return f"version: 1\nsites:\n{site}{leaves}{HQ}"


def without(text: str, *, by: str = "") -> str:
    """Give a grant in which something stands in the place of something else."""
    assert text in GRANT
    return GRANT.replace(text, by)


CASES: tuple[tuple[str, str, str], ...] = (
    ("empty", "", ":1: an empty file is no list of sites"),
    ("later version", f"version: 2\nsites:\n{HQ}", ":1: version: "),
    ("no sites", "version: 1\nsites: []\n", ":2: sites: "),
    ("unknown field", f"version: 1\nsites:\n{HQ}hub: x\n", ":4: hub: unknown field"),
    ("name", "version: 1\nsites:\n  - {name: Edge_1, region: eu}\n", ":3: sites.0.name: "),
    ("twice", f"version: 1\nsites:\n{HQ}{HQ}", ":4: sites.1.name: hq is listed twice"),
    ("no key", sites("  - name: edge-1\n    region: eu\n    location: x\n"), ":5: sites.0.location: a site with a loc"),
    ("no place", sites(f"  - name: edge-1\n    region: eu\n    key: {KEY}\n"), ":5: sites.0.key: a site with a key"),
    ("another's key", sites(SITE.replace(KEY, OTHER)), ":6: sites.0.key: this is a key of 'waybill/edge-2'"),
    ("cut key", sites(SITE.replace(KEY, KEY[:-6])), ":6: sites.0.key: a verifier key is waybill/edge-1+"),
    ("key id", sites(SITE.replace("edge-1+", "edge-1+f")), ":6: sites.0.key: the key's id does not fit"),
    ("bucket", sites(SITE.replace("copies", "s3:bucket")), ":5: sites.0.location: a bucket is written s3://"),
    ("no age", sites(SITE + "    max_age_s: 0\n"), ":7: sites.0.max_age_s: "),
    ("no place for", sites("  - name: edge-1\n    region: eu\n", GRANT), ":5: sites.0.leaves: what may leave needs"),
    ("one place", sites(SITE, without("hq", by='"*"')), ":5: sites.0.location: there are copies for several sites"),
    ("unknown recipient", sites(SITE, without("hq", by="hub")), ":8: sites.0.leaves.0.to: hub is none of the sites"),
    ("itself", sites(SITE, without("hq", by="edge-1")), ":8: sites.0.leaves.0.to: edge-1 is the site itself"),
    (
        "twice to one",
        sites(SITE.replace("copies", "c/{recipient}"), GRANT, GRANT),
        ":9: sites.0.leaves.1.to: hq is listed twice",
    ),
    ("class", sites(SITE, without("[public]", by="[secret]")), ":8: sites.0.leaves.0.classes.0: secret is none of the"),
    ("any class", sites(SITE, without("[public]", by='["*"]')), ":8: sites.0.leaves.0.classes.0: * is none of the"),
    ("class twice", sites(SITE, without("[public]", by="[public, public]")), "classes.1: public is listed twice"),
    ("purpose", sites(SITE, without('["*"]', by="[fun]")), ":8: sites.0.leaves.0.purposes.0: fun is none of the"),
    ("any and one", sites(SITE, without('["*"]', by='["*", support]')), "purposes: * is any purpose: write it alone"),
    ("column", sites(SITE, without("event_id", by="event_id, prompt")), "prompt is no column of the events"),
    ("field", sites(SITE, without("event_id", by="event_id, route.price")), "route has no field price"),
    ("struct", sites(SITE, without("event_id", by="event_id, usage")), "usage is made of fields: name those that may"),
    ("required", sites(SITE, without("event_id, event_type, ")), "columns: no row can be without event_id, event_type"),
    ("way", sites(SITE, without("to: hq", by="to: hq, encryption: [ssh]")), ":8: sites.0.leaves.0.encryption.0: "),
    ("days", sites(SITE, without("days: 1", by="days: -1")), ":8: sites.0.leaves.0.retention_days: "),
)
"""Name, text of the file, and a part of the error's text."""
