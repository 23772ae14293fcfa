"""The suites of measurements, one suite a file."""
