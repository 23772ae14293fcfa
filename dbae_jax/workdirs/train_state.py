"""The state that a training carries from step to step."""

import flax.struct
import jax
import optax


@flax.struct.dataclass
class TrainState:
    """The step count, the raw weights, the EMA weights and the state of the optimizer.

    `variables` and `ema` are {"params": weights, "stats": running statistics}.
    """

    step: jax.Array  # int32; number of steps taken
    variables: dict  # raw: as the last step left them
    ema: dict  # exponential moving averages of `variables`
    opt_state: optax.OptState
