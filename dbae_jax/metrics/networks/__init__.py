"""Networks for metrics, as functions of parameter dicts, and the sources of their weights."""
