"""The modes of the command line, a mode a file; here config, workdir, data and model meet."""
