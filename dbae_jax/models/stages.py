"""Down path and up path of encoder and U-Net, as lists of stages.

The networks and the converter of state dicts (`torch_state_dict`) read the same lists. A stage is a
residual block, with or without attention after it. The first convolution is not a stage.
"""

import dataclasses
from typing import Protocol


class Sizes(Protocol):
    """The sizes of encoder or U-Net that decide its stages.

    Attributes:
      image_size: height and width of the images.
      base_channels: channels of the first convolution.
      channel_mult: channels of each level, as multiples of base_channels.
      num_res_blocks: stages per level.
      attention_resolutions: sizes of the feature maps that attention is applied to.
    """

    image_size: int
    base_channels: int
    channel_mult: tuple[int, ...]
    num_res_blocks: int
    attention_resolutions: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A residual block, then optional attention over positions, then optional 2x upsampling."""

    index: int  # as in released state dicts, where the first convolution has index 0
    channels: int  # output channels
    resample: str = "keep"  # or "down": the residual block halves the size
    attention: bool = False
    upsample_after: bool = False


def down_path(network: Sizes) -> list[Stage]:
    """Returns the stages of encoder and U-Net from the first convolution to the middle.

    Each level has `num_res_blocks` stages. Between two levels, one more stage halves the size and
    keeps the channels.
    """
    stages: list[Stage] = []
    for level, mult in enumerate(network.channel_mult):
        channels = network.base_channels * mult
        attention = network.image_size >> level in network.attention_resolutions
        for _ in range(network.num_res_blocks):
            stages.append(Stage(len(stages) + 1, channels, attention=attention))
        if level < len(network.channel_mult) - 1:
            stages.append(Stage(len(stages) + 1, channels, resample="down"))
    return stages


def up_path(network: Sizes) -> list[Stage]:
    """Returns the stages of the U-Net from the middle to the output, with indices from 0.

    Each level has `num_res_blocks + 1` stages, whose input is [h, skip]. The last stage of every
    level but the finest upsamples.
    """
    stages: list[Stage] = []
    for level in reversed(range(len(network.channel_mult))):
        attention = network.image_size >> level in network.attention_resolutions
        for block in range(network.num_res_blocks + 1):
            stages.append(
                Stage(
                    len(stages),
                    network.base_channels * network.channel_mult[level],
                    attention=attention,
                    upsample_after=level > 0 and block == network.num_res_blocks,
                )
            )
    return stages
