"""Measurements and pictures of a model: functions of (model, data); they know no training loop."""
