"""Data for training: files to rows of token ids, published sets to questions, records of roll-outs to training files.

Torch-free: tokenizers are handed in, models never come in here, and nothing is measured. Scored roll-outs are bench
jobs; this room reads their records as plain JSON.
"""
