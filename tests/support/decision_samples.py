"""A complete decision record, and the route that it is about."""

from __future__ import annotations

from datetime import date

from evidence.records import Placement
from policy.placement.records import RouteFacts

TODAY = date(2026, 11, 24)
"""The day on which samples are checked."""

PRICE = "sha256:" + "1" * 64
POLICY = "sha256:" + "2" * 64
OLDER = "sha256:" + "3" * 64
WEIGHTS = "sha256:" + "4" * 64

HOSTED = RouteFacts(name="hosted", placement=Placement.HOSTED, model="large-1", region="eu", price_digest=PRICE)
"""The route of `TEXT`."""

LOCAL = RouteFacts(name="local", placement=Placement.LOCAL, model="small-1", region="on-site", price_digest=PRICE)
"""The route of `LOCAL_TEXT`."""

TEXT = f"""\
# Why `hosted` may exist.
version: 1
route: hosted
title: Questions go to a large model elsewhere.
status: accepted  # by all who were asked
owner: platform team
decided: 2026-11-01
review_by: 2027-05-31
questions:
  data_classification:
    constraint: Only public data may cross.
    assumption: Labels are honest.
    trade_off: Some texts stay and are answered worse.
  route_transparency:
    constraint: Every answer names its route.
    assumption: Applications show it.
    trade_off: The provider is known to users.
  offline_fallback:
    constraint: Only the local route may follow.
    assumption: A small answer is better than none.
    trade_off: Answers are shorter then.
  cross_region_state:
    constraint: Nothing is kept outside the EU.
    assumption: The contract is kept.
    trade_off: No cache helps us there.
  provider_incompatibility:
    constraint: Only plain completions are used.
    assumption: Others speak them as well.
    trade_off: Special features are left out.
  trace_correlation:
    constraint: Each call carries its trace.
    assumption: The provider keeps our id.
    trade_off: Its own steps are not seen.
locations:
  control: {{place: the worker, region: on-site}}
  execution: {{place: the provider, region: eu}}
  data: {{place: Kafka topics, region: on-site}}
  evidence: {{place: Parquet files, region: on-site}}
pins:
  artifact:
    name: large-1
    version: large-1-2026-06-01
    no_digest_because: The weights stay with the provider.
  runtime:
    name: chat completions
    version: v1
  policy:
    - {POLICY}  # reviewed with everybody
    - {OLDER}
  price: {PRICE}
assumptions:
  cost:
    usd_per_request: {{value: 0.02, tolerance_percent: 10}}
    usd_per_month: {{value: 100, tolerance_percent: 10}}
  capacity:
    requests_per_minute: {{value: 60, tolerance_percent: 0}}
    in_flight: {{value: 10, tolerance_percent: 0}}
  latency:
    p50_ms: {{value: 500, tolerance_percent: 20}}
    p95_ms: {{value: 900, tolerance_percent: 20}}
"""
"""The record of `HOSTED`; nothing is wrong with it on `TODAY`, under the policy `POLICY`."""

LOCAL_TEXT = (
    TEXT.replace("route: hosted\n", "route: local\n")
    .replace("place: the provider, region: eu", "place: our own server, region: on-site")
    .replace("name: large-1\n", "name: small-1\n")
    .replace(
        "version: large-1-2026-06-01\n    no_digest_because: The weights stay with the provider.", f"digest: {WEIGHTS}"
    )
)
"""The record of `LOCAL`; the same holds."""
