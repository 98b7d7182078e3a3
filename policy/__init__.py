"""What may happen: labels, detectors, redaction and the data-flow contract."""
