"""Configs: typed sections with their checks, and what is built from them."""
