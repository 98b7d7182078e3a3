"""The evidence of one site: immutable Parquet files, and commits that say which of them count."""
