"""The report: what a model does and how well, as one page for a browser."""
