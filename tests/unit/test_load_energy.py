"""Power and energy where something tells them, words where nothing does; and whether others took the CPU."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from bench.load import contention, energy


def zone(root: Path, name: str, micro: int) -> Path:
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(f"{micro}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    return folder


def test_rapl_adds_packages_up_and_goes_on_round_their_ends(tmp_path: Path) -> None:
    a, b = zone(tmp_path, "intel-rapl:0", 999_000_000), zone(tmp_path, "intel-rapl:1", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", 7)  # a part of a package is in it already
    source, _ = energy.Rapl.find(tmp_path)
    assert source is not None and source.name == "RAPL, 2 packages"
    with energy.Meter(energy.Found(source), every_s=60.0) as meter:
        (a / "energy_uj").write_text("2000000\n")
        (b / "energy_uj").write_text("6000000\n")
    assert meter.result["joules"] == pytest.approx(3.0 + 1.0) and meter.result["watts"] > 0


def test_what_cannot_be_read_is_said_and_never_guessed(tmp_path: Path) -> None:
    source, why = energy.Rapl.find(tmp_path)
    assert source is None and "no RAPL" in why
    (zone(tmp_path, "intel-rapl:0", 1) / "energy_uj").write_text("locked")
    assert "may not be read" in energy.Rapl.find(tmp_path)[1]
    with energy.Meter(energy.Found(None, "not readable: no counter")) as meter:
        pass
    assert meter.result == {"source": None, "joules": None, "watts": None, "why": "not readable: no counter"}


def test_power_alone_becomes_energy_over_the_time() -> None:
    class Watts:
        name = "watts"

        def watts(self) -> float:
            return 50.0

        def joules(self) -> None:
            return None

    with energy.Meter(energy.Found(Watts()), every_s=0.01) as meter:
        time.sleep(0.1)
    assert meter.result["watts"] == pytest.approx(50.0) and meter.result["joules"] == pytest.approx(5.0, rel=0.5)


class Nvml:
    """What nvidia-ml-py gives, for two GPUs: milliwatts, and millijoules where the GPU counts them."""

    class NVMLError(Exception):
        pass

    def __init__(self, counts: bool) -> None:
        self.counts, self.used = counts, 0

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, i: int) -> int:
        return i

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return 70_000 + gpu

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: int) -> int:
        if not self.counts:
            raise self.NVMLError("not supported")
        self.used += 500
        return self.used


@pytest.mark.parametrize("counts", [True, False])
def test_gpus_are_counted_in_joules_or_else_by_their_power(counts: bool) -> None:
    nvml = Nvml(counts)
    source = energy.Nvml(nvml)
    assert source.name == "NVML, 2 GPUs" and source.watts() == pytest.approx(140.001)
    with energy.Meter(energy.Found(source), every_s=0.02) as meter:
        time.sleep(0.1)
    if counts:
        assert 0 < meter.result["joules"] <= 2 * nvml.used / 1000 and meter.result["watts"] > 0
    else:
        assert meter.result["watts"] == pytest.approx(140.001)


def test_this_machine_either_tells_or_says_why_not() -> None:
    for gpu in (False, True):
        found = energy.find(gpu)
        assert (found.source is None) == bool(found.why)
        assert found.source is not None or found.why.startswith("not readable: ")


def test_a_thread_without_a_cpu_has_waited(tmp_path: Path) -> None:
    """Several threads that all want to run: each gets the interpreter, and a CPU, only now and then."""
    before = contention.waited_s()
    if before is None:
        pytest.skip("this kernel does not tell how long a thread waits for a CPU")
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    threads = [threading.Thread(target=spin) for _ in range(4)]
    for t in threads:
        t.start()
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    stop.set()
    for t in threads:
        t.join()
    waited = contention.since(before)
    assert waited is not None and 0 < waited < 5
    assert contention.waited_s(tmp_path / "none") is None and contention.since(None) is None
    (tmp_path / "odd").write_text("no numbers here")
    assert contention.waited_s(tmp_path / "odd") is None
