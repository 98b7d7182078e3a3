"""What every test may ask for: brokers and servers, each started when the first test asks and shared by the session."""

from __future__ import annotations

pytest_plugins = ["kafka_fixtures", "prometheus_fixtures", "s3_fixtures", "triton_fixtures"]
