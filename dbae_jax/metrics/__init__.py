"""Arrays in, numbers out: metrics know no model and no config."""
