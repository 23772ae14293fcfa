"""Settings of the paper's tables, one file per table and training set; see docs/evaluation.md."""
