"""The report: one HTML page with images, scores and settings of a model."""
