"""How papers measure: folds, seeds and model selection, on latent codes and features."""
