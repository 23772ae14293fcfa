"""Settings of the paper's tables, one file a table and training set; see docs/evaluation.md."""
