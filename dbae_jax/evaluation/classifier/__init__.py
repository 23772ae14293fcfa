"""A small classifier of a data set's labels, whose features and answers suites use."""
