"""DBAE on a folder of images of your own at 64x64: the networks and settings of configs/base.py.

python -m dbae_jax.data.prepare --dataset=folder --name=flowers --source=FOLDER
python -m dbae_jax.main --config=configs/folder.py --config.data.name=flowers --workdir=runs/flowers

docs/data.md says how the folder is split; gray images want --config.data.channels=1.
"""

from dbae_jax.configs import base


def get_config():
    c = base.get_config()
    c.data.name = "folder"
    c.data.crop = "center"
    return c
