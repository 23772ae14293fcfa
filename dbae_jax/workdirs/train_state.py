"""What training carries from step to step."""

import flax.struct
import jax
import optax


@flax.struct.dataclass
class TrainState:
    """Step count, raw and averaged weights with their running statistics, optimizer state.

    `variables` and `ema` are {"params": ..., "stats": ...}.
    """

    step: jax.Array  # int32, steps taken
    variables: dict
    ema: dict
    opt_state: optax.OptState
