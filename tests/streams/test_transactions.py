"""Where a record goes, as Kafka's own clients choose it."""

from __future__ import annotations

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka import KafkaSettings
from streams.transactions import partition_of


@given(key=st.binary(min_size=1, max_size=64), count=st.integers(1, 200))
def test_a_key_goes_where_kafkas_clients_put_it(key, count):
    """Our choice of a partition is the default partitioner's, so that applications find their keys where they look."""
    partitions = list(range(count))
    assert partition_of(key, count) == DefaultPartitioner()(key, partitions, partitions)


def test_a_prefix_is_on_every_name():
    """Topics, groups and transactions of two pipelines on one cluster never meet."""
    settings = KafkaSettings("h:1", prefix="p.")
    assert settings.group("dispatch") == "p.waybill-dispatch"


def test_a_password_is_never_shown():
    """The settings' text holds no secret."""
    assert "hunter2" not in repr(KafkaSettings("h:1", sasl_password="hunter2"))  # noqa: S106 - not a real one
