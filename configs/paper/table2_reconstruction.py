"""Table 2: an FFHQ model reconstructs all 30,000 images of CelebA-HQ.

python -m dbae_jax.main --config=configs/ffhq.py --workdir=runs/ffhq
python -m dbae_jax.main --config=configs/paper/table2_reconstruction.py --workdir=runs/ffhq \
    --mode=evaluate
python -m dbae_jax.main --config=configs/paper/table2_reconstruction.py:sde --workdir=runs/ffhq \
    --mode=evaluate

Published: SSIM .953 (see dbae_jax/report/paper.py), LPIPS .072, MSE 2.49e-3 (DBAE-d); .920, .094,
4.81e-3 (DBAE). SSIM and MSE use the ODE, LPIPS the SDE. Variants: ode, sde; deterministic,
stochastic, sampled. LPIPS needs its published weights in eval.weights_dir.
"""

from dbae_jax.configs import celebahq
from dbae_jax.configs.paper import variants
from ml_collections import ConfigDict

SAMPLERS = {
    "ode": {"sample.sampler": "euler", "sample.steps": 100, "eval.label": "ode"},
    # A third of every interval is integrated with the reverse SDE. The authors also use euler with
    # 333 steps.
    "sde": {
        "sample.sampler": "heun",
        "sample.steps": 167,
        "sample.churn": 0.33,
        "eval.label": "sde",
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of the named variants, separated by commas.

    "" selects the first variant of every group.
    """
    c = celebahq.get_config()
    variants.evaluate(c, "reconstruction", lpips=True)
    return variants.apply(c, variant, SAMPLERS, variants.ENCODERS)
