"""Stand-in for torchvision.transforms; the interpolation modes are members that SGLang and transformers read."""

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
