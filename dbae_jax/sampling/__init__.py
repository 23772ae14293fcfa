"""Samplers from x_T to x_0: time grids, tables of coefficients, and the loop that runs a table."""
