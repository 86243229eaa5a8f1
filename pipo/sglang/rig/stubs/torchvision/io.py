"""Stand-in for torchvision.io."""

from torchvision import lookup

__getattr__ = lookup(__name__)
