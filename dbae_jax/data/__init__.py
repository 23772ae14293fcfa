"""Data sets as random-access sources, and the pipeline from a source to batches."""
