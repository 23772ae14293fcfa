"""Metrics: functions from arrays to numbers, which depend on no model and no config."""
