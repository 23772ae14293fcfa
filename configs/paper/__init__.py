"""Settings of the paper's tables, one file per table; see docs/how-to/authors_release.md."""
