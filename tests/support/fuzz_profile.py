"""The plugin of `make fuzz`: property tests with many more examples and no time limit for each."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fuzz", max_examples=5_000, deadline=None)
settings.load_profile("fuzz")
