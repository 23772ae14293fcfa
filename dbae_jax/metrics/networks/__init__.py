"""Networks with published weights, as functions of dicts of arrays, and where weights come from."""
