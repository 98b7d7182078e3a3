"""What people look at: the Grafana dashboard, generated from code."""
