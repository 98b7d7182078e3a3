"""Runtime decision records: why a route may exist."""
