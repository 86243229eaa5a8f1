"""What else differs between the two runs of a diff: settings, models, versions, commit, device. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.diff_runs import Side
from pipo.engine.types import Method

SPOKEN_OF_ELSEWHERE = ("kind", "fingerprints", "tasks", "benchmarks", "variants", "model", "method")


def changed(old: Side, new: Side, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows ``what``, ``a``, ``b``: settings, models, versions, commit and device where they differ.

    ``names``: the variants that are compared, new -> old; of the others nothing is said.
    """
    facts: list[dict[str, Any]] = [{}, {}]
    for i, side in enumerate((old, new)):
        into, p = facts[i], side.run.provenance
        into |= _flat({k: v for k, v in side.run.spec.items() if k not in SPOKEN_OF_ELSEWHERE})
        into |= {f"questions of {t}": mark for t, mark in _named(side.run.spec.get("tasks")).items()}
        into |= _flat(side.run.spec.get("benchmarks") or {}, "benchmark ")
        variants = {v.name: v for v in side.run.variants}
        for name, pair in ((name, (was, name)) for name, was in names.items()):
            v = variants.get(pair[i])
            if v is not None:
                into[f"variant {name}"] = f"{v.model}, {method_text(v.method)}"
                into[f"weights of {name}"] = p.models.get(v.model)
        into |= {f"version of {name}": v for name, v in p.versions.items()}
        into |= {"commit": p.git_commit + (", with changes" if p.git_dirty else ""), "device": p.device,
                 "cores": p.cpu_count, "threads": p.threads, "engine": p.engine, "seed": p.seed}  # fmt: skip
    keys = dict.fromkeys([*facts[0], *facts[1]])
    return [
        {"what": key, "a": facts[0].get(key), "b": facts[1].get(key)}
        for key in keys if facts[0].get(key) != facts[1].get(key)
    ]  # fmt: skip


def method_text(method: Method) -> str:
    """A method with the one setting that it uses."""
    setting = {"pipo": "threshold", "eagle": "depth", "random": "keep_rate"}.get(method.name)
    return f"{method.name} {setting.replace('_', ' ')} {getattr(method, setting):g}" if setting else method.name


def _named(tasks: Any) -> dict[str, Any]:
    return tasks if isinstance(tasks, dict) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted names."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = value
    return out
