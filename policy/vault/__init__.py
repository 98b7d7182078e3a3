"""What is kept encrypted: keys by tenant and period, sealed objects, their end, and their disclosure."""
