"""The networks in flax.linen: encoder, endpoint decoder, U-Net, and the latent prior's MLP.

`autoencoder.Networks` and `latent_net.LatentNetwork` give the networks as pure functions of their
weights. Only this folder imports flax.linen.
"""
