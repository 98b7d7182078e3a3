"""The stages: each composes pure decisions and does the I/O around them."""
