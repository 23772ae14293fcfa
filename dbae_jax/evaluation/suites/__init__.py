"""The suites of measurements, one file per suite."""
