"""Workdirs: the config, the checkpoints and the records of one run."""
