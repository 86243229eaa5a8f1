"""``python -m pipod.selftest [--json]``: how quick the daemon is, measured with jobs that do nothing. Torch-free.

In a home of its own, gone afterwards. Three times, each from the call of ``submit``: ``ack``, the job is on disk;
``first event``, the client holds the job's first event (``queued``); ``started``, it holds the worker's first word.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from pipod.client import Client, connect

LIMIT_MS = 50.0


def measure(client: Client, count: int) -> list[dict[str, float]]:
    """Milliseconds from submission for ``count`` jobs, one after the other."""
    rows = []
    for _ in range(count):
        began = time.perf_counter()
        job = client.submit("noop", {"items": 1})
        row = {"ack": (time.perf_counter() - began) * 1000}
        for event in client.events(job.id):
            now = (time.perf_counter() - began) * 1000
            row.setdefault("first_event", now)
            row.setdefault(event.kind, now)
        rows.append(row)
    return rows


def run(count: int) -> dict[str, Any]:
    """Start a daemon in a temporary home and measure; times in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="pipod-selftest-") as folder:
        began = time.perf_counter()
        with connect(home=Path(folder)) as client:
            start = (time.perf_counter() - began) * 1000
            try:
                (cold,) = measure(client, 1)
                warm = measure(client, count)
            finally:
                client.shutdown()
    result: dict[str, Any] = {"jobs": count, "daemon_start_ms": start, "cold_worker_started_ms": cold["started"]}
    for name in ("ack", "first_event", "started", "ended"):
        values = sorted(row[name] for row in warm)
        worst = values[max(0, round(0.95 * len(values)) - 1)]
        result[f"{name}_ms"] = {"median": statistics.median(values), "p95": worst, "max": values[-1]}
    result["limit_ms"] = LIMIT_MS
    result["ok"] = result["started_ms"]["median"] < LIMIT_MS
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipod.selftest", description="Measure the daemon's latencies.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--jobs", type=int, default=50, help="how many jobs with a warm worker")
    args = parser.parse_args()
    result = run(max(1, args.jobs))
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(result)).decode())
    else:
        print(f"daemon {result['daemon_start_ms']:.0f} ms, worker {result['cold_worker_started_ms']:.0f} ms to start")
        for name in ("ack", "first_event", "started", "ended"):
            row = result[f"{name}_ms"]
            print(f"{name:12} median {row['median']:6.1f} ms  p95 {row['p95']:6.1f}  max {row['max']:6.1f}")
        print("ok" if result["ok"] else f"too slow: started after more than {LIMIT_MS:.0f} ms")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
