"""Stand-in for torchvision.transforms.v2.functional."""

from torchvision import lookup
from torchvision.transforms import InterpolationMode as InterpolationMode

__getattr__ = lookup(__name__)
