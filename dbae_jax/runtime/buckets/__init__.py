"""Buckets of object stores as places for runs: paths, the lock of a run, and local copies."""
