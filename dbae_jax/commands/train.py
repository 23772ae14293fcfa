"""Trains the autoencoder, or resumes its training."""

import functools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dbae_jax.api import loading
from dbae_jax.api.dbae import DBAE
from dbae_jax.commands import same_codes
from dbae_jax.configuration import paths
from dbae_jax.configuration.config import Config, to_dict
from dbae_jax.configuration.distillation import is_distilled
from dbae_jax.data import identity, images, pipeline, registry
from dbae_jax.data.pipeline import Batches
from dbae_jax.data.sources import Source, gather
from dbae_jax.errors import ConfigError
from dbae_jax.evaluation.suites import reconstruction
from dbae_jax.runtime import failures, fingerprint, rngs, sharding
from dbae_jax.training import determinism, fine_tuning
from dbae_jax.training.hooks import Hook, Hooks, TrainingLog
from dbae_jax.training.jitted_step import Training, make_training
from dbae_jax.training.loop import Description, Run, run_loop, start_run
from dbae_jax.workdirs import checkpoint, lock, records, trackers, workdir
from dbae_jax.workdirs.train_state import TrainState

Action = Callable[[int, TrainState], None]

log = logging.getLogger(__name__)

# If shuffled latent codes raise the loss by less than this fraction of it, z is hardly used.
MIN_RELATIVE_CODE_GAP = 0.02
# Beginnings of the keys that a distilled model has in common with its teacher.
OF_TEACHER = ("model.", "bridge.", "data.image_size", "data.channels")
REMEDY = (
    "Try a smaller config.{}.learning_rate, config.optim.grad_clip_norm=1.0, a longer "
    "config.optim.warmup_steps, or config.model.dtype=float32."
)


def train(config: Config, directory: pathlib.Path, training: Training | None = None) -> TrainState:
    """Trains until `config.train.num_steps`, from scratch or from the workdir's last checkpoint.

    Args:
      config: checked config.
      directory: the workdir, made if missing; checkpoints, metrics.jsonl and images go there.
      training: `make_training` of this config, or of the same config with a different seed.
        Default: built here, for all devices.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: if the config does not fit the devices or the run in the workdir. Nothing is
        written then.
      CheckpointError: if the workdir cannot be used.
      NonFiniteError: if the loss or a gradient is not finite; the last checkpoint stays.
      PreemptedError: after a SIGTERM or Ctrl-C, once the state is saved (see `processes.start`).
    """
    workdir.check_usable(directory)
    checkpoint.check_processes(directory)
    trackers.check(config, directory)
    kept = functools.partial(workdir.last_checkpoint, directory)
    with lock.held(directory), failures.explaining(kept):
        return _train(config, directory, training)


def _train(config: Config, directory: pathlib.Path, training: Training | None) -> TrainState:
    source = registry.make_source(config.data, "train")
    held_out = registry.make_source(config.data, "test")
    registry.describe(config.data, {"training": source, "test": held_out})
    training = training or make_training(config, sharding.make_mesh())
    data = identity.of(source)
    run, origin = set_up(config, directory, training, data)
    start = int(run.state.step)
    if start >= config.train.num_steps:
        log.info("The run in %s has taken %d steps already. %s", directory, start, _longer(config))
        return run.state
    if changed := workdir.changes(directory, config):
        log.info("Keys that have changed since this run was last started: %s.", ", ".join(changed))
        workdir.keep_config(directory, start)
    if "encoder" in config.train.frozen and not checkpoint.steps(directory):
        same_codes.copy(config.train.init_from, config, directory, run.mesh)  # or refuses to
    workdir.write_config(directory, config)
    with (
        determinism.programs_kept(config, directory),
        _checkpoints(config, directory) as checkpoints,
        records.Writer(directory, config, start_step=start) as scalars,
        _batches(config, source, run.mesh, start) as batches,
    ):
        model = DBAE(config, run.state.ema, networks=training.networks, mesh=run.mesh)
        meta = workdir.meta(config, data=data, **origin)
        hooks = _make_hooks(training, model, directory, held_out, checkpoints, scalars, meta)
        return run_loop(run, batches, hooks, stop=config.train.num_steps, directory=directory)


def _longer(config: Config) -> str:
    """Returns how a run that has finished is trained longer."""
    if is_distilled(config):  # in the same workdir, it would go back to an earlier stage
        return "To distil longer, name a new workdir, and raise config.distill.num_steps."
    return "To train longer, raise config.train.num_steps."


def _checkpoints(config: Config, directory: pathlib.Path) -> checkpoint.Writer:
    section = config.checkpoint
    return checkpoint.Writer(
        directory, keep_last=section.keep_last, keep_every_steps=section.keep_every_steps
    )


def set_up(
    config: Config, directory: pathlib.Path, training: Training, data: dict[str, Any]
) -> tuple[Run, dict[str, Any]]:
    """Reads the state of the last checkpoint, or makes a new one.

    Checkpoints that cannot be read are moved aside.

    Args:
      config: checked config.
      directory: the workdir.
      training: the jitted training step and what belongs to it.
      data: identity of the training images; it must fit the run.

    Returns:
      The run, and where the weights of a fine-tuned model come from, for the meta of checkpoints.
    """
    section = config.train
    run = start_run(
        training.init,
        training.train_step,
        directory,
        resume=functools.partial(workdir.resume, directory, config),
        seed=config.seed,
        mesh=training.mesh,
        description=Description(
            what="Training",
            data=config.data.name,
            length=f"{section.num_steps} steps of {section.batch_size} images, "
            f"{config.model.dtype}",
            remedy=REMEDY.format("distill" if is_distilled(config) else "optim"),
        ),
    )
    if checkpoint.steps(directory):
        meta = checkpoint.read_meta(directory, int(run.state.step))
        otherwise = (
            f"train on the new ones in another workdir; --init_from={directory} starts from these "
            "weights"
        )
        identity.check(directory, meta.get("data"), data, otherwise)
        return run, _origin(directory, meta, config)
    return _fine_tuned(run, config) if section.init_from else (run, {})


def _origin(directory: pathlib.Path, meta: dict[str, Any], config: Config) -> dict[str, Any]:
    """Returns where the weights of a run that resumes came from, as its checkpoint says."""
    init_from = config.train.init_from
    known = {key: meta[key] for key in (workdir.ORIGIN, workdir.RELEASED) if key in meta}
    if init_from and not known:
        raise ConfigError(
            f"config.train.init_from={init_from} cannot be used here: the run in {directory} did "
            "not start from another model. Leave it out, or name a new workdir."
        )
    begun = known[workdir.ORIGIN]["name"] if workdir.ORIGIN in known else meta.get(workdir.RELEASED)
    if workdir.ORIGIN not in known and is_distilled(config):  # weights of a distilled model
        begun = meta["config"]["train"]["init_from"]
    if not init_from or begun == init_from or _place(begun) == _place(init_from):
        return known
    if is_distilled(config):
        raise ConfigError(
            f"--teacher={init_from} is not the teacher of the run in {directory}, which started "
            f"from {begun}. Leave --teacher out to resume, or name a new workdir."
        )
    log.warning(
        "The run in %s started from %s. config.train.init_from=%s has no effect on it.",
        *(directory, begun, init_from),
    )
    return known


def _place(name: Any) -> pathlib.Path:
    """Returns the absolute path of a model that may be written in several ways."""
    return paths.read(name, "config.train.init_from", buckets=True).resolve()


def _fine_tuned(run: Run, config: Config) -> tuple[Run, dict[str, Any]]:
    """Returns a new run with the weights of the model `train.init_from`, and their origin."""
    name, parts = config.train.init_from, config.train.init_parts
    read = loading.arguments(name, "ema", step=None, mesh=run.mesh)
    if is_distilled(config):
        _check_teacher(name, read["config"], config)
    elif is_distilled(read["config"]) and "unet" in parts:
        log.warning(
            "The model %s is distilled, so its U-Net predicts one image and not the mean. To train "
            "on, start from its teacher, %s.",
            *(name, read["config"].train.init_from),
        )
    saved = to_dict(read["config"])
    for difference in workdir.differing(saved, config, ("bridge.",), where=f"in {name}"):
        log.warning(
            "The model %s was trained with another bridge: config.%s. Its U-Net may need a longer "
            "training to fit the new one.",
            *(name, difference),
        )
    state = fine_tuning.initialised(run.state, read["variables"], parts, name)
    log.info("The weights of %s are those of %s (%s).", ", ".join(parts), name, read["source"])
    whose = {"name": name, "step": read["step"], "parts": list(parts)}
    weights = {"fingerprint": fingerprint.of(read["variables"])}
    return run._replace(state=state), {workdir.ORIGIN: whose | weights}


def _check_teacher(name: str, of_teacher: Config, config: Config) -> None:
    """Refuses a teacher that is distilled, or that has other networks or another bridge."""
    if is_distilled(of_teacher):
        raise ConfigError(
            f"The teacher {name} is a distilled model itself. Name the model that it was distilled "
            f"from, {of_teacher.train.init_from}."
        )
    if found := workdir.differing(to_dict(of_teacher), config, OF_TEACHER, where="of the teacher"):
        raise ConfigError(
            f"The config of the teacher {name} is another one: {', '.join(found)}. Give these keys "
            "the values of the teacher. If the teacher is a workdir, leaving --config out does so."
        )


def _batches(config: Config, source: Source, mesh: jax.sharding.Mesh, start_step: int) -> Batches:
    """Returns this process's part of every batch, put on its devices ahead of the step."""
    return pipeline.train_batches(
        source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        start_step=start_step,
        flip=config.data.flip,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads,
        num_workers=config.data.num_workers,
        prefetch_batches=config.data.prefetch_batches,
        to_device=lambda batch: sharding.to_global(mesh, batch),
    )


def _make_hooks(
    training: Training,
    model: DBAE,
    directory: pathlib.Path,
    held_out: Source,
    checkpoints: checkpoint.Writer,
    scalars: records.Writer,
    meta: dict[str, Any],
) -> Hooks:
    """Returns the hooks that a config asks for; configs/base.py explains their intervals."""
    config, section = model.config, model.config.train

    def save(step: int, state: TrainState) -> None:
        scalars.flush()
        checkpoints.save(state, step, meta)

    training_log = TrainingLog(
        directory,
        scalars,
        learning_rate=training.learning_rate,
        batch_size=section.batch_size,
        num_steps=section.num_steps,
    )
    hooks = [
        Hook(section.log_every_steps, training_log.write),
        Hook(section.diagnose_every_steps, _diagnoser(config, training, held_out, scalars)),
        Hook(section.evaluate_every_steps, _evaluator(model, held_out, scalars)),
        Hook(section.picture_every_steps, _painter(model, held_out, directory)),
        Hook(config.checkpoint.every_steps, save),
    ]
    return Hooks(
        hooks,
        section.num_steps,
        training_log=training_log,
        save=save,
        preempted=checkpoints.preempted,
    )


def _diagnoser(
    config: Config, training: Training, held_out: Source, scalars: records.Writer
) -> Action:
    """Returns a hook that checks whether z is used.

    It evaluates the loss on one fixed batch of test images, at fixed times and noises, with the
    images' own codes and with shuffled ones.
    """
    everywhere = sharding.replicated(training.mesh)
    size = config.train.batch_size
    # Read at the first use: a run that never diagnoses reads no test images.
    test_images = functools.cache(lambda: gather(held_out, size)[0])
    key = sharding.replicate(rngs.stream(jax.random.key(config.seed), "diagnose"), everywhere)

    def action(step: int, state: TrainState) -> None:
        batch = np.resize(test_images(), (size, *test_images().shape[1:]))
        placed = {"image": sharding.spread(training.mesh, batch)}
        measured = jax.device_get(training.diagnose(state, placed, key))
        values = {name: float(value) for name, value in measured.items()}
        scalars.write(step, values)
        gap, loss = values["code_gap"], values["eval_loss"]
        log.info(
            "step %d: latent variance %.2g, test loss %.4f, %+.4f with shuffled latent codes "
            "(a change near 0 means that z is not used)",
            *(step, values["z_variance"], loss, gap),
        )
        if gap < MIN_RELATIVE_CODE_GAP * loss and not config.train.frozen:
            log.warning(
                "step %d: z is hardly used: giving each image the latent code of a different image "
                "changes the loss by only %+.2f%%. If this lasts, train longer, raise "
                "config.optim.learning_rate, or train a new model with a larger "
                "config.train.share_at_T, or with config.model.encoder.pool=flatten if it is mean.",
                *(step, 100 * gap / loss),
            )

    return action


def _evaluator(model: DBAE, held_out: Source, scalars: records.Writer) -> Action:
    """Returns a hook that measures the reconstruction error of test images."""
    config = model.config
    test_images = functools.cache(lambda: gather(held_out, config.eval.num_images or None)[0])

    def action(step: int, state: TrainState) -> None:
        error = reconstruction.mse(model.with_variables(state.ema), test_images(), config.sample)
        scalars.write(step, {"test_mse": error})
        log.info("step %d: reconstruction MSE of test images %.5f (pixels in [0, 1])", step, error)

    return action


def _painter(model: DBAE, held_out: Source, directory: pathlib.Path) -> Action:
    """Returns a hook that writes reconstructions of test images as a PNG file."""
    config = model.config
    test_images = functools.cache(lambda: gather(held_out, config.eval.num_pictures)[0])

    def action(step: int, state: TrainState) -> None:
        trained = model.with_variables(state.ema)
        rows = reconstruction.picture_rows(trained, test_images(), config.sample)
        images.save_grid(directory / "pictures" / f"reconstructions_{step:08d}.png", rows)

    return action
