"""Data sets as sources (random access to examples), and the pipeline from a source to batches."""
