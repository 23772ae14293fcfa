"""Authors' PyTorch state dicts <-> our workdirs.

python -m dbae_jax.convert --checkpoint=ema.pt --config=configs/celeba.py --workdir=DIR
python -m dbae_jax.convert --reverse --checkpoint=out.safetensors --workdir=DIR
"""
