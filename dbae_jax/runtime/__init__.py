"""Processes, devices, files, random keys and progress; nothing here knows models or configs."""
