"""Builders: one class per data set that reads the published files and writes array_record files."""
