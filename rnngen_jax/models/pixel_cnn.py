"""PixelCNN (van den Oord et al. 2016, 3.5) and Gated PixelCNN (van den Oord et al. 2016b).

The baselines of the recurrent models: masked convolutions with a limited receptive field.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from rnngen_jax.models.base import Model
from rnngen_jax.models.grid import GridConfig, grid_level, require_kernel
from rnngen_jax.models.levels import Coarser
from rnngen_jax.modules.grid.conv import ConvBlock, GatedConv
from rnngen_jax.shapes import ImageSpec


@dataclass(frozen=True)
class Config(GridConfig):
    """Choices of PixelCNN; see `GridConfig` for the others.

    Attributes:
      gated: gated units, with a separate stack for the rows above, which removes the blind spot.
      kernel: side of the layers' square kernels, odd.
    """

    gated: bool = False
    kernel: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_kernel("kernel", self.kernel)


def build(config: Config, spec: ImageSpec) -> Model:
    """Builds the model for images like `spec`.

    Raises:
      UserError: a readout unsuitable for the images.
    """
    return build_level(config, spec)()


def build_level(
    config: Config, spec: ImageSpec, coarser: Coarser | None = None
) -> Callable[..., Model]:
    """Builds a level of `models.levels.over_levels`, given the codes of a coarser level, if any.

    Raises:
      UserError: as `build`.
    """
    kind = GatedConv if config.gated else ConvBlock
    layer = functools.partial(kind, features=config.features, radius=config.kernel // 2)
    return grid_level("pixel_cnn", config, spec, layer, apart=config.gated, coarser=coarser)
