"""Fine-tuning: a new training that starts from the weights of another model."""

import dataclasses

import jax

from dbae_jax.errors import CheckpointError
from dbae_jax.workdirs.train_state import TrainState


def initialised(
    state: TrainState, variables: dict, parts: tuple[str, ...], name: str
) -> TrainState:
    """Returns a new state in which some networks have the weights of another model.

    They become the raw and the EMA weights. The other networks and the optimizer stay new.

    Args:
      state: new state at step 0, with random weights.
      variables: {"params", "stats"} of the other model, on the devices of the state.
      parts: names of the networks: "encoder", "decoder", "unet".
      name: name of the other model, for errors.

    Raises:
      CheckpointError: if the other model lacks a network, or its weights have other shapes.
    """
    _check_same_shapes(name, variables, state.variables, parts)
    new = {
        "params": state.variables["params"] | {p: variables["params"][p] for p in parts},
        "stats": variables["stats"] if "decoder" in parts else state.variables["stats"],
    }
    # Copies, because a step overwrites the arrays of its state.
    copies = [jax.tree.map(jax.numpy.copy, new) for _ in range(2)]
    return dataclasses.replace(state, variables=copies[0], ema=copies[1])


def _check_same_shapes(name: str, read: dict, new: dict, parts: tuple[str, ...]) -> None:
    for part in parts:
        if part not in read["params"]:
            raise CheckpointError(
                f"config.train.init_from={name} has no {part}; its parts are "
                f"{', '.join(read['params'])}. Choose them with config.train.init_parts."
            )
        shapes = [_shapes(tree["params"][part]) for tree in (read, new)]
        differing = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
        if differing:
            leaf = differing[0][0]
            there, here = (known.get(leaf, "missing") for known in shapes)
            raise CheckpointError(
                f"config.train.init_from={name} does not fit: {part}{leaf} is {there} there and "
                f"{here} in this config. Use the model's config, or leave {part} out of "
                "config.train.init_parts."
            )


def _shapes(tree: dict) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
