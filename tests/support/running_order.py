"""In which order files are run: long ones first, so that at the end no worker is left alone with one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

ROOT: Final = Path(__file__).resolve().parents[2]

LONG: Final = (
    "brokers/test_apache_kafka.py",
    "e2e/test_broker_faults.py",
    "e2e/test_dev_ends.py",
    "cli/test_outputs.py",
    "pipeline/test_registry_on_kafka.py",
    "e2e/test_kill_worker.py",
    "pipeline/test_records_of_others.py",
    "e2e/test_refused_writes.py",
    "e2e/test_one_site.py",
    "evidence/test_federation.py",
    "pipeline/test_approvals_on_kafka.py",
    "policy/test_names.py",
    "e2e/test_user_instructions.py",
    "e2e/test_anything_on_any_topic.py",
    "e2e/test_stop_under_load.py",
    "e2e/test_dev_elsewhere.py",
    "e2e/test_long_texts.py",
    "dashboards/test_dashboard_over_a_run.py",
    "evidence/test_faults.py",
    "inference/test_triton_backend.py",
    "evidence/test_pack.py",
    "streams/test_sink.py",
    "pipeline/test_stages_on_kafka.py",
    "e2e/test_intent_before_call.py",
    "e2e/test_broker_away.py",
    "pipeline/test_long_texts_on_kafka.py",
    "streams/test_readable.py",
    "inference/test_control_tokens.py",
    "e2e/test_stop_while_starting.py",
    "policy/test_properties.py",
    "e2e/test_dev_whole_way.py",
    "contract/test_backend_contract.py",
    "pipeline/test_consent_on_kafka.py",
    "e2e/test_policy_moves.py",
    "e2e/test_send_resumes.py",
    "docs/test_guides.py",
    "docs/test_reading_answers.py",
    "evidence/test_rows.py",
    "cli/test_erase.py",
    "cli/test_approvals.py",
    "e2e/test_no_leak.py",
    "docs/test_told_by_code.py",
    "cli/test_decisions.py",
    "queries/test_federated.py",
)
"""Files of more than about ten seconds, below `tests`, the longest first."""

_PLACE: Final = {ROOT / "tests" / name: number for number, name in enumerate(LONG)}


class Placed(Protocol):
    """A test, as far as the order looks at it."""

    path: Path


Test = TypeVar("Test", bound=Placed)


def in_order(items: Sequence[Test]) -> list[Test]:
    """Give the tests with those of long files first; otherwise in the order they are in."""
    return sorted(items, key=lambda item: _PLACE.get(item.path, len(LONG)))
