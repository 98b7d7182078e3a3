"""What happened, provably: records, the Parquet store, and what reads them back."""
