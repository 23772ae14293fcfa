"""Configs: typed sections with their checks, and the objects that are built from them."""
