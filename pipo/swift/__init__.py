"""The second engine of training: ms-swift, for several processes and GPUs. The only room that imports swift.

ms-swift brings launching, DDP and DeepSpeed, its arguments, its checkpoints and its logs; settings, order of the data,
augmentation, losses and the rate schedule are those of pipo.train, so that both engines walk the same curve. What may
not enter: the daemon, measuring, a training recipe of its own.
"""
