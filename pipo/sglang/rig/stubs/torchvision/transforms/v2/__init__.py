"""Stand-in for torchvision.transforms.v2."""

import torchvision.transforms.v2.functional  # noqa: F401 - found before the lookup
from torchvision import lookup
from torchvision.transforms import InterpolationMode as InterpolationMode

__getattr__ = lookup(__name__)
