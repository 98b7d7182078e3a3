"""Who asks and who calls: signed tokens in, workload tokens out."""
