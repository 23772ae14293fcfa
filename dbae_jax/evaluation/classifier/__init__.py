"""A small classifier of a data set's labels; suites use its features and its predictions."""
