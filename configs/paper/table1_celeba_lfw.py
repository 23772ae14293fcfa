"""Table 1, left, r and MSE: linear probes of LFW's 73 attributes on latent codes of a CelebA model.

python -m dbae_jax.main --config=configs/celeba.py --workdir=runs/celeba
python -m dbae_jax.main --config=configs/paper/table1_celeba_lfw.py --workdir=runs/celeba \
    --mode=evaluate

Published: r .635, MSE .413 (DBAE-d); .643, .369 (DBAE). Their epochs were chosen on test images, as
for `r_best_on_test` and `mse_best_on_test`; the epochs of `r` and `mse` are chosen on the last
tenth of the training persons. Variants: deterministic, stochastic, sampled.
"""

from dbae_jax.configs import lfw
from dbae_jax.configs.paper import variants
from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the named variants, separated by commas.

    "" selects the first variant of every group.
    """
    c = lfw.get_config()
    c.data.flip = False
    variants.evaluate(c, "probe", probe_batch_size=64)
    return variants.apply(c, variant, variants.ENCODERS)
