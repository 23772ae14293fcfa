"""The mathematics of the diffusion bridge: noise schedules, marginals, preconditioning."""
