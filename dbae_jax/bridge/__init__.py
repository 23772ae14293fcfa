"""The mathematics of the diffusion bridge: schedules, marginals, preconditioning."""
