"""The towers of encoder and U-Net as tables: networks and converter both read these.

A stage is one entry of a tower: a residual block, attention after it or not. The first convolution
is no stage. `index` counts as released state dicts do, with the first convolution at 0.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Stage:
    """A residual block to `channels`, then attention over positions, then 2x upsampling."""

    index: int
    channels: int
    resample: str = "keep"
    attention: bool = False
    upsample_after: bool = False


def down_path(
    *,
    image_size: int,
    base_channels: int,
    channel_mult: tuple[int, ...],
    num_res_blocks: int,
    attention_resolutions: tuple[int, ...],
) -> list[Stage]:
    """Returns the stages from the first convolution to the middle.

    Each level has `num_res_blocks` stages, with attention at the named resolutions; one more,
    which halves the size and keeps the channels, stands between levels.
    """
    stages: list[Stage] = []
    for level, mult in enumerate(channel_mult):
        channels = base_channels * mult
        attention = image_size >> level in attention_resolutions
        for _ in range(num_res_blocks):
            stages.append(Stage(len(stages) + 1, channels, attention=attention))
        if level < len(channel_mult) - 1:
            stages.append(Stage(len(stages) + 1, channels, resample="down"))
    return stages


def up_path(
    *,
    image_size: int,
    base_channels: int,
    channel_mult: tuple[int, ...],
    num_res_blocks: int,
    attention_resolutions: tuple[int, ...],
) -> list[Stage]:
    """Returns the U-Net's stages from the middle to the output, index from 0.

    Each level has `num_res_blocks + 1` stages, each on [h, skip]; the last of a level upsamples,
    but for the finest level.
    """
    stages: list[Stage] = []
    for level in reversed(range(len(channel_mult))):
        attention = image_size >> level in attention_resolutions
        for block in range(num_res_blocks + 1):
            stages.append(
                Stage(
                    len(stages),
                    base_channels * channel_mult[level],
                    attention=attention,
                    upsample_after=level > 0 and block == num_res_blocks,
                )
            )
    return stages
