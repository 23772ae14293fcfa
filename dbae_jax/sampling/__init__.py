"""Samplers from x_T to x_0: time grids, tables of coefficients, and the scan that runs a table."""
