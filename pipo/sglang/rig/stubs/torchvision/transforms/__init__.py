"""Stand-in for torchvision.transforms; transformers and SGLang read the members of InterpolationMode on import."""

from __future__ import annotations

from enum import Enum

from torchvision import lookup


class InterpolationMode(Enum):
    """As in torchvision."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


__getattr__ = lookup(__name__)

import torchvision.transforms.functional  # noqa: E402 - modules that exist are found before the lookup
import torchvision.transforms.v2  # noqa: E402, F401
