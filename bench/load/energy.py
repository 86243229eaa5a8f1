"""Power and energy while a point runs, where the machine tells: GPUs by NVML or nvidia-smi, CPUs by RAPL. Torch-free.

Never a guess: where nothing tells, that is said. What is counted is the whole device, idle power included, whoever
else uses it.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

POWERCAP = Path("/sys/class/powercap")
ELSEWHERE = "not readable: which device an endpoint computes on is not known here"
SAMPLE_S = 0.1
SMI = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits")


class Source(Protocol):
    """Something that tells power (``watts``, now) or energy (``joules``, since some moment); None where it fails."""

    name: str

    def watts(self) -> float | None: ...
    def joules(self) -> float | None: ...


class Nvml:
    """All GPUs together, by the package nvidia-ml-py where it is installed."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._gpus = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        self.name = f"NVML, {len(self._gpus)} GPU{'s' if len(self._gpus) != 1 else ''}"

    @staticmethod
    def find() -> tuple[Nvml | None, str]:
        """The source, or why there is none."""
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return None, "nvidia-ml-py is not installed"
        try:
            nvml.nvmlInit()
            found = Nvml(nvml)
        except nvml.NVMLError as e:
            return None, f"NVML: {e}"
        return (found, "") if found._gpus else (None, "NVML: no GPU")

    def watts(self) -> float | None:
        return self._sum(self._nvml.nvmlDeviceGetPowerUsage)

    def joules(self) -> float | None:
        return self._sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption)

    def _sum(self, ask: Any) -> float | None:
        try:
            return float(sum(ask(g) for g in self._gpus)) / 1000
        except self._nvml.NVMLError:
            return None


class Smi:
    """All GPUs together, by the program nvidia-smi."""

    name = "nvidia-smi"

    @staticmethod
    def find() -> tuple[Smi | None, str]:
        """The source, or why there is none."""
        found = Smi()
        return (found, "") if found.watts() is not None else (None, "nvidia-smi tells no power")

    def watts(self) -> float | None:
        try:
            done = subprocess.run(SMI, capture_output=True, text=True, timeout=5, check=True)
            values = [float(line) for line in done.stdout.split()]
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
        return sum(values) if values else None

    def joules(self) -> float | None:
        return None


class Rapl:
    """All CPU packages together, by the kernel's counters, which may start anew at their ends."""

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._last: dict[Path, float] = {}
        self._total = 0.0
        self.name = f"RAPL, {len(zones)} package{'s' if len(zones) != 1 else ''}"

    @staticmethod
    def find(root: Path = POWERCAP) -> tuple[Rapl | None, str]:
        """The source, or why there is none."""
        zones = [z for z in sorted(root.glob("*-rapl:*")) if z.name.count(":") == 1]
        if not zones:
            return None, f"no RAPL in {root}"
        found = Rapl(zones)
        return (found, "") if found.joules() is not None else (None, f"RAPL in {root} may not be read")

    def watts(self) -> float | None:
        return None

    def joules(self) -> float | None:
        try:
            for zone in self._zones:
                now = float((zone / "energy_uj").read_text())
                gone = now - self._last.get(zone, now)
                if gone < 0:
                    gone += float((zone / "max_energy_range_uj").read_text())
                self._total += gone
                self._last[zone] = now
        except (OSError, ValueError):
            return None
        return self._total / 1e6


class Found(NamedTuple):
    """What tells, or why nothing does."""

    source: Source | None
    why: str = ""


def find(gpu: bool) -> Found:
    """What tells on this machine. ``gpu``: whether the work runs on GPUs."""
    whys = []
    for kind in (Nvml, Smi) if gpu else (Rapl,):
        source, why = kind.find()
        if source is not None:
            return Found(source)
        whys.append(why)
    return Found(None, f"not readable: {'; '.join(whys)}")


class Meter:
    """Reads a source while a ``with`` block runs. ``result``: joules, watts (mean), source; None where not readable."""

    def __init__(self, found: Found, every_s: float = SAMPLE_S) -> None:
        self.found, self.every_s = found, every_s
        self.result: dict[str, Any] = {"source": None, "joules": None, "watts": None, "why": found.why}
        self._samples: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Meter:
        self._start = time.perf_counter()
        if self.found.source is not None:
            self._begin = self.found.source.joules()
            self._thread = threading.Thread(target=self._sample, daemon=True, name="energy")
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._thread is None or (source := self.found.source) is None:
            return
        self._stop.set()
        self._thread.join(10.0)
        wall, end = time.perf_counter() - self._start, source.joules()
        if end is not None and self._begin is not None:
            joules: float | None = end - self._begin
        else:
            joules = self._integral(wall)
        watts = None if joules is None or wall <= 0 else joules / wall
        why = "" if joules is not None else "not readable: it stopped telling, or the point was too short"
        self.result = {"source": source.name, "joules": joules, "watts": watts, "why": why}

    def _sample(self) -> None:
        source = self.found.source
        assert source is not None
        while True:
            value = source.watts() if self._begin is None else source.joules()  # a counter may go round meanwhile
            if value is not None and self._begin is None:
                self._samples.append((time.perf_counter(), value))
            if self._stop.wait(self.every_s):
                return

    def _integral(self, wall: float) -> float | None:
        if len(self._samples) < 2:
            return None
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(self._samples, self._samples[1:]))
        span = self._samples[-1][0] - self._samples[0][0]
        with contextlib.suppress(ZeroDivisionError):
            return area / span * wall
        return None
