"""Reports: run folders -> one markdown page, figures and tables. Draws in the caller's process; knows no torch.

Everything shown comes from the records and summaries of finished runs (bench/summary.py has their schema) and, marked
as such, from the paper (paper.toml). Imports ``bench.record`` and ``pipo.errors`` only; matplotlib where it draws.
"""

from __future__ import annotations

from reports.build import build

__all__ = ["build"]
