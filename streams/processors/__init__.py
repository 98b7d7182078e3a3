"""The four decisions of the pipeline, as pure functions from record to records."""
