"""The training study as tables for a terminal; schema in ablations/training_summary.py."""

from __future__ import annotations

from typing import Any

from pipo.cli.output import print_table

DEFAULT_THRESHOLD = 0.95


def show(result: dict[str, Any]) -> None:
    """A line a row: quality at the default threshold and at best, kept share at no loss; then what is missing."""
    k, reference = result.get("k", 0), result.get("reference")
    print(
        f"loose budget; percent, ± half of the 95% interval over questions and seeds; Δ: minus {reference}; area: mean "
        f"avg@{k} over kept shares from 0 to 1\nkept at no loss: largest kept share whose avg@{k} is not shown to be "
        f"below {reference}'s | below the row's own best point's\n"
    )
    keys = {key["row"]: key for key in result.get("keys", ())}
    columns = ["row", "seeds", "gate", f"avg@{k}", "over seeds", f"Δ {reference}", "kept", "best", "area", "no loss"]
    print_table(columns, [_line(result, t["row"], keys) for t in result.get("trainings", ()) if t["seeds"]],
                left=["gate"])  # fmt: skip
    for (name, why), seeds in missing(result).items():
        print(f"missing: {name}, seed {', '.join(map(str, seeds))}: {why}")


def missing(result: dict[str, Any]) -> dict[tuple[str, str], list[int]]:
    """(row, why) -> seeds that are not there."""
    out: dict[tuple[str, str], list[int]] = {}
    for m in result.get("missing", ()):
        out.setdefault((m["row"], m["why"]), []).append(m["seed"])
    return out


def _line(result: dict[str, Any], name: str, keys: dict[str, Any]) -> list[str]:
    found = [r for r in result["rows"] if r["row"] == name and r["budget"] == "loose"]
    row = next((r for r in found if r["threshold"] == DEFAULT_THRESHOLD), found[0])
    key = keys.get(name, {})
    gaps = [
        d for d in result["differences"]
        if (d["row"], d["reference"], d["budget"], d["metric"]) == (name, result["reference"], "loose", "avg")
        and all(d[part] == row[part] for part in ("gate", "threshold", "keep_rate"))
    ]  # fmt: skip
    best = key.get("best")
    return [
        name, str(row["avg"]["seeds"]), gate_name(row), percent(row["avg"]), _range(row["avg"]),
        percent(gaps[0], sign=True) if gaps else "-", percent(row["kept_share"], digits=0),
        f"{100 * best['avg']['value']:.1f} ({gate_name(best)})" if best else "-", percent(key.get("area")),
        " | ".join(_kept(key.get(part)) for part in ("kept_reference", "kept_best")) if key else "-",
    ]  # fmt: skip


def gate_name(point: dict[str, Any]) -> str:
    """``tau 0.95``, ``coin 0.4`` or ``regular``."""
    if point["gate"] == "coin":
        return f"coin {point['keep_rate']:g}"
    return "regular" if point["gate"] == "regular" else f"tau {point['threshold']:g}"


def percent(estimate: dict[str, Any] | None, digits: int = 1, sign: bool = False) -> str:
    """An estimate of a share in percent with half of its interval; without it at no digits."""
    if not estimate:
        return "-"
    value = f"{100 * estimate['value']:{'+' if sign else ''}.{digits}f}"
    if not digits or estimate.get("low") is None:
        return value
    return f"{value} ±{50 * (estimate['high'] - estimate['low']):.1f}"


def _range(estimate: dict[str, Any]) -> str:
    if estimate["seeds"] < 2:
        return "-"
    return f"{100 * estimate['seed_low']:.1f}..{100 * estimate['seed_high']:.1f}"


def _kept(key: dict[str, Any] | None) -> str:
    return f"{100 * key['kept_share']:.0f}" if key else "none"
