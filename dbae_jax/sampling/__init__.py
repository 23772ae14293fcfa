"""Sampling from x_T to x_0: time grids, coefficient tables, and the scan that runs them."""
