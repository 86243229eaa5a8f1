"""Running programs that a model wrote: no network, no files of the host, everything bounded (docs/SCORING.md).

``run.py`` is the front and watches from outside; ``jail.py`` builds the walls in a process of its own. Torch-free.
"""
