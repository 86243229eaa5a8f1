"""Prefix caching: a pair's MTP row depends on the token after the pair, so the tree's keys must know it.

SGLang's EAGLE has the same need and gives the tree keys of two neighbours ("bigrams"); the same switch serves here. A
prefix then matches up to the last pair whose successor is the same too, and what is reused is what would be written.
"""

from __future__ import annotations

from typing import Any

from pipo.sglang.hooks.loading import is_pairs


def radix_cache(original: Any, ctx: Any) -> Any:
    """Build the tree with keys of two neighbouring pairs for a PIPO model."""
    if is_pairs(ctx.model_config.hf_config):
        ctx.params.is_eagle = True
    return original(ctx)
