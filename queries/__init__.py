"""Questions, answered in SQL over the published evidence."""
