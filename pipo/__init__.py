"""PIPO: pair-in, pair-out decoding: the model, the methods, training, and the command line people type."""

__version__ = "0.1.0"
