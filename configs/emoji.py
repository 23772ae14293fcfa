r"""DBAE on emoji at 64x64 RGB, for one GPU; configs/emoji32.py is for a CPU.

npm pack emoji-datasource-google@16.0.0
python -m dbae_jax.data.prepare --dataset=emoji --source=emoji-datasource-google-16.0.0.tgz
dbae train --config=emoji --workdir=runs/emoji
dbae train_prior --workdir=runs/emoji
dbae evaluate --workdir=runs/emoji --config.eval.suite=all --report

The networks and the batch are those of configs/folder64.py. By plan, a step takes 11.0 ms at best
on an H100. With twice that time per step, the training takes 9 minutes. It has not been run yet.

Labels are categories, attributes are skin tones and subcategories; see
docs/reference/data_sets.md.
"""

from dbae_jax.configs import emoji32, folder64
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the config."""
    c = folder64.get_config()
    small = emoji32.get_config()
    c.data = small.data
    c.data.image_size = 64
    c.eval = small.eval

    c.optim.learning_rate = 5e-4
    c.train.num_steps = 25_000
    c.train.diagnose_every_steps = 2_500
    c.train.picture_every_steps = 5_000
    c.train.evaluate_every_steps = 0
    c.prior.num_steps = 20_000
    return c
