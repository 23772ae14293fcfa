"""A trained model in Python."""
