"""Measurements of a trained model: suites, the protocols behind them, and results.json."""
