"""What lies in a workdir: its config, checkpoints and records."""
