"""Training: pure losses, pad augmentation, the loop, SFT, OPD. What may not enter: the daemon, the command line."""
