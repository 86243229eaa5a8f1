"""The entry point that SGLang calls in each of its processes (group ``sglang.srt.plugins``).

It registers the hooks of ``table``, has them applied at once, and checks that every one took: SGLang itself only logs a
hook that fails. A process in which one did not take ends with a message that names it. With another version of
SGLang nothing is touched, and a PIPO model cannot be loaded there.
"""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipo.sglang.rig import STUBS
from pipo.sglang.table import HOOKS, RIG_HOOKS, VERSION, Hook

logger = logging.getLogger(__name__)


def activate() -> None:
    """Put the hooks in and check them. Raises SystemExit naming the first that did not take."""
    found = installed()
    if found != VERSION:
        logger.warning(
            "pipo: sglang %s is installed, its hooks are for %s; PIPO models cannot be loaded", found, VERSION
        )
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    rig = on_rig()
    if rig:
        import sgl_kernel.mamba  # noqa: F401 - puts the CPU's operators into torch.ops before a model looks for them
    hooks = HOOKS + (RIG_HOOKS if rig else ())
    for hook in hooks:
        problem = changed(hook)
        if problem:
            raise SystemExit(f"pipo: {problem}; pipo's hooks are for sglang {VERSION} as it was published")
        HookRegistry.register(hook.target, hook.load(), HookType[hook.kind])
    HookRegistry.apply_hooks()
    for hook in hooks:
        if not took(hook):
            raise SystemExit(f"pipo: the hook on {hook.target} did not take ({hook.without}); see the log above")
    # SGLang sets its log up later than this; the line says for each process that it was done there.
    print(f"[pipo] {len(hooks)} hooks verified in process {os.getpid()}", file=sys.stderr, flush=True)


def on_rig() -> bool:
    """Whether this process sees the rig's stand-ins; a real ``sgl_kernel``, for a GPU or a CPU, is left alone."""
    spec = find_spec("sgl_kernel")
    return spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(STUBS)


def installed() -> str | None:
    """The installed version of sglang, or None."""
    try:
        return version("sglang")
    except PackageNotFoundError:
        return None


def changed(hook: Hook) -> str | None:
    """What is wrong with a hook's target, None where its signature is the one that the hook was written for."""
    try:
        target = bare(hook)
    except (ImportError, AttributeError) as e:
        return f"sglang has no {hook.target} ({e})"
    names = tuple(inspect.signature(inspect.unwrap(target)).parameters)
    if names != hook.parameters:
        return f"{hook.target} takes ({', '.join(names)}), not ({', '.join(hook.parameters)})"
    return None


def bare(hook: Hook) -> Callable[..., Any]:
    """The function that a hook's target names, out of its classmethod or staticmethod. Raises as imports do."""
    owner, name = hook.target.rsplit(".", 1)
    place = pkgutil.resolve_name(owner)
    raw = place.__dict__.get(name) if isinstance(place, type) else getattr(place, name)
    if raw is None:
        raise AttributeError(f"{owner} does not define {name} itself")
    return getattr(raw, "__func__", raw)  # type: ignore[no-any-return]


def took(hook: Hook) -> bool:
    """Whether our function stands in the target's chain of wrappers."""
    ours, link = hook.load(), bare(hook)
    while link is not None:
        if any(cell.cell_contents is ours for cell in getattr(link, "__closure__", None) or ()):
            return True
        link = getattr(link, "__wrapped__", None)  # type: ignore[assignment]
    return False
