"""Algorithms that you run from the clone, one a file: `python -m agents.pebble`."""
