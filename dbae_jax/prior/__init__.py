"""The latent prior: a diffusion model of z."""
