"""The modes of the command line, one file per mode.

Each mode combines config, workdir, data and model.
"""
