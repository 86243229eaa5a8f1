"""The command line that people type: one file per command group, thin over the daemon's client and the reports.

Nothing here imports torch, transformers or matplotlib: ``pipo --help`` must stay under 0.3 s of CPU
(``python -m bench.cli_speed`` measures it). Heavy work happens in the daemon's worker; what a command needs beyond
Typer is imported inside the command.
"""

from __future__ import annotations

from pipo.cli.app import app, main

__all__ = ["app", "main"]
