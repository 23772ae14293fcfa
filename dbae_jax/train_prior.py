"""Training the latent prior of a trained model, on the codes of its training images.

What is reported: `loss`, the mean of |eps - eps_hat|; and of test images, of normalised codes
in nats, `prior_nll_nats`, an upper bound on E[-log p_prior(z)] (see `latent_diffusion`), beside
`gaussian_nll_nats`, what a Gaussian with the codes' means and variances reaches. L_PR is
E KL(q(z | x_0) || p_prior(z)): of a stochastic encoder `l_pr_nats` bounds it from above, z being
drawn from q. A deterministic encoder's q is a point, its entropy minus infinity: `prior_nll_nats`
is then all of L_PR that depends on the prior.
"""

import functools
import logging
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dbae_jax import (
    batching,
    build,
    checkpoint,
    compiled_step,
    files,
    fingerprint,
    hooks,
    loop,
    optim,
    prior,
    rngs,
    sharding,
    summaries,
    workdir,
)
from dbae_jax import codes as codes_lib
from dbae_jax.api import DBAE
from dbae_jax.codes import Codes
from dbae_jax.config import Config, to_dict
from dbae_jax.data import registry
from dbae_jax.latent_diffusion import Bound, LatentDiffusion
from dbae_jax.models.latent_net import LatentNetwork
from dbae_jax.train_state import TrainState
from dbae_jax.train_step import StepFn

SUMMARY = "summary.json"
REMEDY = "Try a smaller config.prior.learning_rate."
LOG_2_PI = math.log(2 * math.pi)

log = logging.getLogger(__name__)


def train_prior(config: Config, directory: pathlib.Path) -> TrainState:
    """Trains until `config.prior.num_steps`, from scratch or from the last checkpoint.

    Args:
      config: must fit the run in the workdir; `prior` is followed.
      directory: the workdir of a trained model; all goes into its folder "prior".

    Returns:
      The state after the last step.

    Raises:
      CheckpointError: if there is no model, or the prior there is of other weights' codes.
      ConfigError: if the config does not fit the model or the prior in the workdir.
      NonFiniteError, PreemptedError: as `train.train`.
    """
    mesh = sharding.make_mesh()
    sharding.check_batch_size(config.prior.batch_size, mesh, "prior.batch_size")
    files.check_folder(directory, "--workdir")
    folder = directory / prior.FOLDER
    codes, autoencoder = _codes(config, directory, mesh)
    run = set_up(config, folder, codes["train"], autoencoder, mesh)
    start, stop = int(run.state.step), config.prior.num_steps
    if start >= stop:
        log.info("The prior in %s is at step %d already; nothing to do.", folder, start)
        return run.state
    workdir.write_config(folder, config)
    batches = codes.batches(
        codes["train"],
        batch_size=config.prior.batch_size,
        seed=config.seed,
        start_step=start,
        mesh=mesh,
    )
    with (
        checkpoint.Writer(
            folder, keep_last=config.checkpoint.keep_last, keep_every_steps=0
        ) as checkpoints,
        summaries.Writer(folder, start_step=start) as scalars,
    ):
        meta = workdir.meta(config, **{prior.AUTOENCODER: autoencoder})
        measure = make_measure(config, codes["test"], mesh)
        actions = _make_hooks(config, folder, meta, measure, checkpoints, scalars)
        return loop.run_loop(run, batches, actions, stop=stop, directory=folder)


def _codes(
    config: Config, directory: pathlib.Path, mesh: jax.sharding.Mesh
) -> tuple[dict[str, Codes], dict[str, Any]]:
    """Returns the codes of both splits, and whose they are: step and weights of a model."""
    loaded = workdir.load(directory, sharding=sharding.replicated(mesh))
    workdir.check_same_model(directory, to_dict(loaded.config), config)
    autoencoder = {
        "step": loaded.step,
        "weights": "ema",
        "fingerprint": fingerprint.of(loaded.variables),
    }
    data = config.data
    sources = {split: registry.make_source(data, split) for split in ("train", "test")}
    counts = {split: len(source) for split, source in sources.items()}
    counts["test"] = min(config.eval.num_images or counts["test"], counts["test"])
    identity = autoencoder | {
        "computed": [config.model.dtype, config.model.matmul_precision],
        "data": [data.name, data.lmdb, data.train_split, data.test_split, data.crop],
        "sources": {split: repr(source) for split, source in sources.items()},
        "counts": counts,
    }

    def encode() -> dict[str, Codes]:
        model = DBAE(config, loaded.variables, networks=loaded.networks, mesh=mesh)
        return {
            split: codes_lib.encode(
                model, source, count=counts[split], num_threads=data.num_threads
            )
            for split, source in sources.items()
        }

    path = directory / prior.FOLDER / CODES_FILE
    return codes_lib.kept(path, identity, encode), autoencoder


def set_up(
    config: Config,
    folder: pathlib.Path,
    codes: Codes,
    autoencoder: dict[str, Any],
    mesh: jax.sharding.Mesh,
) -> loop.Run:
    """Builds the step and finds or draws the state."""
    network, optimizer = build.make_latent_network(config), optim.make_prior_optimizer(config)
    stats = codes.statistics()
    step = make_step(
        network,
        LatentDiffusion(config.prior.timesteps, config.prior.beta),
        optimizer,
        ema_decay=config.prior.ema_decay,
        sample_codes=config.prior.sample_codes,
    )

    def read(abstract: TrainState, at: int) -> TrainState:
        meta = checkpoint.read_meta(folder, at)
        prior.check_same_codes(folder, meta, autoencoder)
        workdir.check_same_model(folder, meta["config"], config, prior.FIXED)
        return checkpoint.read_state(folder, at, abstract)

    def resume(abstract: TrainState) -> TrainState | None:
        found = checkpoint.newest_readable(
            folder, functools.partial(read, abstract), move_torn=True
        )
        return None if found is None else found[1]

    return loop.start_run(
        lambda key: prior.create(network, optimizer, key, stats),
        compiled_step.jitted(step, mesh),
        folder,
        resume=resume,
        seed=config.seed,
        mesh=mesh,
        remedy=REMEDY,
    )


def make_step(
    network: LatentNetwork,
    diffusion: LatentDiffusion,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float,
    sample_codes: bool,
) -> StepFn:
    """Returns step(state, batch, key) -> (state, metrics), as `train_step.make_train_step`.

    The batch is {"mean"[, "sigma"]: [B, D]}; z is drawn anew every step if `sample_codes`, and
    its mean otherwise.
    """

    def step(state: TrainState, batch: dict, key: jax.Array):
        key = jax.random.fold_in(key, state.step)
        z, stats = batch["mean"], state.variables["stats"]
        if sample_codes:
            z = z + batch["sigma"] * jax.random.normal(rngs.stream(key, "code"), z.shape)
        z_0 = prior.normalised(stats, z)
        t = jax.random.randint(rngs.stream(key, "t"), z.shape[:1], 0, diffusion.timesteps)
        eps = jax.random.normal(rngs.stream(key, "noise"), z.shape)

        def loss_fn(params):
            eps_fn = functools.partial(network.predict, params)
            return diffusion.loss(eps_fn, z_0, t, eps).mean()

        before = state.variables["params"]
        loss, grads = jax.value_and_grad(loss_fn)(before)
        updates, opt_state = optimizer.update(grads, state.opt_state, before)
        params = optax.apply_updates(before, updates)
        ema = optax.incremental_update(params, state.ema["params"], 1 - ema_decay)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(params),
        }
        variables, averaged = ({"params": p, "stats": stats} for p in (params, ema))
        return TrainState(state.step + 1, variables, averaged, opt_state), metrics

    return step


def make_measure(
    config: Config, codes: Codes, mesh: jax.sharding.Mesh
) -> Callable[[dict], dict[str, float]]:
    """Returns measure(variables) -> what the module reports of codes, at fixed draws."""
    diffusion = LatentDiffusion(config.prior.timesteps, config.prior.beta)
    uniform = np.random.default_rng(0).random((len(codes.mean), config.prior.bound_points))
    bound = diffusion.bound(config.prior.bound_points, uniform)
    batch = jax.jit(
        functools.partial(_measure_batch, build.make_latent_network(config), diffusion),
        out_shardings=sharding.replicated(mesh),
    )
    key = jax.random.key(0)
    size = batching.whole_size(config.prior.batch_size, mesh)

    def measure(variables: dict) -> dict[str, float]:
        def run(part, t, indices):
            return batch(variables, part, bound._replace(t=t), key, indices)

        everything = np.arange(len(codes.mean))
        parts = codes.at(everything), bound.t, everything
        rows = batching.run(run, *parts, size=size, mesh=mesh)
        values = {name: float(row.mean(dtype=np.float64)) for name, row in rows.items()}
        error = rows["prior_nll_nats"].std() / math.sqrt(len(everything))
        return values | {"prior_nll_se": float(error)}

    return measure


def _measure_batch(
    network: LatentNetwork,
    diffusion: LatentDiffusion,
    variables: dict,
    batch: dict,
    bound: Bound,
    key: jax.Array,
    indices: jax.Array,
) -> dict[str, jax.Array]:
    """Returns, for each code, what `make_measure` takes the means of: [B] each."""
    keys, shape = rngs.per_example(key, indices), batch["mean"].shape[1:]

    def noise_fn(index):
        return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, index), shape))(keys)

    z, stats = batch["mean"], variables["stats"]
    if "sigma" in batch:
        z = z + batch["sigma"] * noise_fn(diffusion.timesteps)  # a number that no step has
    z_0 = prior.normalised(stats, z)
    eps_fn = functools.partial(network.predict, variables["params"])
    nll = diffusion.bound_terms(eps_fn, z_0, bound, noise_fn)
    rows = {
        "prior_nll_nats": nll,
        "gaussian_nll_nats": 0.5 * jnp.sum(z_0**2 + LOG_2_PI, axis=-1),
    }
    if "sigma" in batch:
        entropy = jnp.sum(jnp.log(batch["sigma"] / stats["std"]) + 0.5 * (LOG_2_PI + 1), axis=-1)
        rows["l_pr_nats"] = nll - entropy
    return rows


def _make_hooks(
    config: Config,
    folder: pathlib.Path,
    meta: dict[str, Any],
    measure: Callable[[dict], dict[str, float]],
    checkpoints: checkpoint.Writer,
    scalars: summaries.Writer,
) -> hooks.Hooks:
    meter, clock = hooks.Meter(), hooks.Clock.going_on(folder)
    section = config.prior
    evaluate = _make_evaluate(folder, meta[prior.AUTOENCODER], measure, scalars)

    def save(step: int, state: TrainState) -> None:
        checkpoints.save(state, step, meta)

    logger = hooks.make_logger(
        meter,
        clock,
        scalars,
        rate_schedule=lambda step: section.learning_rate,
        batch_size=section.batch_size,
        num_steps=section.num_steps,
        unit="codes",
    )
    actions = [
        hooks.Hook(section.log_every_steps, logger),
        hooks.Hook(section.evaluate_every_steps or section.num_steps, evaluate),
        hooks.Hook(section.checkpoint_every_steps, save),
    ]
    return hooks.Hooks(
        actions,
        section.num_steps,
        meter=meter,
        clock=clock,
        save=save,
        preempted=checkpoints.preempted,
    )


def _make_evaluate(
    folder: pathlib.Path,
    autoencoder: dict[str, Any],
    measure: Callable[[dict], dict[str, float]],
    scalars: summaries.Writer,
) -> Callable[[int, TrainState], None]:
    def evaluate(step: int, state: TrainState) -> None:
        values = measure(state.ema)
        scalars.write(step, values)
        summary = values | {"step": step, prior.AUTOENCODER: autoencoder}
        files.write_json(folder / SUMMARY, summary)
        log.info(
            "step %d  codes of test images: -log p at most %.2f nats (standard error %.2f), of a "
            "Gaussian %.2f",
            *(step, values["prior_nll_nats"], values["prior_nll_se"]),
            values["gaussian_nll_nats"],
        )

    return evaluate


CODES_FILE = "codes.npz"
