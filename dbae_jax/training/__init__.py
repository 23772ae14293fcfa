"""The autoencoder's loss and training step, and the loop of any training."""
