"""Hand-made records of load runs, put through the summary: for tests of what is printed and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from bench import provenance, record
from bench.load import summary
from bench.load.records import ClientRecord, LoadRecord, PointRecord, RequestRecord, append
from bench.load.spec import LoadSpec
from bench.record import Run, Variant
from pipo.engine.types import Method

VARIANTS = [Variant("regular", "lab/base", Method()), Variant("pipo", "lab/pipo-opd", Method("pipo"))]
SLO = {"ttft": 0.1, "tpot": 0.02}


def requests(point: str, variant: str, count: int, pace: float, wrong: int = 0) -> list[RequestRecord]:
    """Requests half a second apart; ``pace``: seconds a token, pairs for pipo; the first ``wrong`` ones fail."""
    size = 2 if variant == "pipo" else 1
    out = []
    for i in range(count):
        chunks = [0.05 + 0.001 * i + size * pace * n for n in range(12 // size)]
        usual = {"point": point, "variant": variant, "index": i, "due_s": 0.5 * i, "sent_s": 0.5 * i + 0.001}
        if i < wrong:
            out.append(RequestRecord(status="failed", error="HTTP 500: lost", ended_s=0.5 * i + 0.1, **usual))
            continue
        out.append(
            RequestRecord(
                first_s=chunks[0], pair_s=chunks[0] if size == 2 else chunks[1], queue_s=0.01, chunk_s=chunks,
                chunk_tokens=[size] * len(chunks), finish="tokens", prompt_tokens=9, ended_s=0.5 * i + chunks[-1],
                slots=12 // size, offered=6 * (size - 1), kept=5 * (size - 1), **usual,
            )
        )  # fmt: skip
    return out


def records(mode: Any = "rate", loads: tuple[float, ...] = (2.0, 4.0), count: int = 40) -> list[LoadRecord]:
    out: list[LoadRecord] = [
        ClientRecord(
            side="engine", requests=100, chunks=64, request_s={"p50": 1e-5, "p99": 2e-5}, chunk_s=2e-6,
            send_delay_s={"p50": 1e-4, "p99": 2e-4},
        )
    ]  # fmt: skip
    for load in loads:
        for v in VARIANTS:
            name = f"{v.name} {mode}={load:g}"
            made = requests(name, v.name, count, (0.01 if v.name == "regular" else 0.007) * load / 2, 2 * (load > 2))
            energy = {"source": "RAPL, 1 package", "joules": 50.0 * load, "watts": 12.5, "why": ""}
            p = PointRecord(
                point=name, variant=v.name, mode=mode, load=load, requests=count, wall_s=count * 0.5 + 0.2, own_s=0.01,
                most=2, energy=energy,
            )  # fmt: skip
            out += [*made, p]
    return out


def settings(mode: str = "rate") -> LoadSpec:
    more: dict[str, Any] = {"trace": "azure-conv"} if mode == "trace" else {}
    return LoadSpec(slo={} if mode == "trace" else SLO, **more)


def made(mode: str = "rate", found: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """A summary as the job makes it."""
    kind = "probe" if found else mode
    head = {"target": "torch", "mode": "find_rate" if found else mode, "scale": 0.25 if mode == "trace" else None}
    source = provenance.collect({}, seed=0, engine="torch", device="cpu", threads=1, models={})
    run = Run(kind="load", spec={}, provenance=source, variants=VARIANTS)
    loads = (2.0,) if mode == "trace" else (2.0, 4.0)
    plain = summary.summarise(run, settings(mode), records(kind, loads, **more), found or [], head)
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(plain))
    return decoded


def folder(path: Path, mode: str = "rate", found: list[Any] | None = None) -> Path:
    """A finished run folder."""
    path.mkdir(parents=True)
    source = provenance.collect({}, seed=0, engine="torch", device="cpu", threads=1, models={})
    provenance.open_run(path, Run(kind="load", spec={}, provenance=source, variants=VARIANTS))
    append(path / "records.jsonl", records("probe" if found else mode, (2.0,) if mode == "trace" else (2.0, 4.0)))
    record.write_json(path / "summary.json", made(mode, found))
    return path
