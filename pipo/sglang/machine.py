"""What this machine has: versions, GPUs, memory, ports. Torch-free; anything that cannot be found out stops nobody."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipo.errors import BadInput

GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
RIG_FLOOR = 2 << 30  # bytes: three processes with torch loaded, and the caches of a small model
GPU_FLOOR = 2 << 30  # bytes: CUDA's own, and the least cache that is of use


def installed(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def has_gpu() -> bool:
    """Whether a driver of a GPU is seen."""
    return any(Path(f).exists() for f in GPU_FILES)


def free_port(host: str) -> int:
    """A port that is free now. Raises BadInput where the host is none of this machine's."""
    with _socket(host) as s:
        _bind(s, host, 0)
        return int(s.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raise BadInput where a port is in use, or may not be used."""
    with _socket(host) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(s, host, port)


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def _bind(s: socket.socket, host: str, port: int) -> None:
    try:
        s.bind((host, port))
    except socket.gaierror as e:
        raise BadInput(f"host {host!r} is not known ({e.strerror}); name an address of this machine") from e
    except OSError as e:
        raise BadInput(f"port {port} of {host} cannot be used ({e.strerror}); name another port, or none") from e


def check_memory(parameters: int, *, on_cpu: bool, tp: int, devices: str | None) -> None:
    """Raise BadInput where a model's weights and a floor beside them exceed what is free."""
    need = parameters * 4 + RIG_FLOOR if on_cpu else parameters * 2 // tp + GPU_FLOOR
    have = free_memory() if on_cpu else free_gpu_memory(devices)
    if have is not None and need > have:
        what = "memory" if on_cpu else "memory of a GPU"
        raise BadInput(
            f"the model needs about {need / 2**30:.1f} GiB of {what} at least, {have / 2**30:.1f} GiB are free; "
            f"{'take a smaller model' if on_cpu else 'free some, name other --devices or raise --tp'}"
        )


def free_memory() -> int | None:
    """Bytes of memory that processes can still have here, a container's limit respected; None where unknown."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        line = next(x for x in Path("/proc/meminfo").read_text().split("\n") if x.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(found, default=None)


def free_gpu_memory(devices: str | None) -> int | None:
    """Bytes free on the fullest of the GPUs; None where unknown."""
    return min((int(mb) << 20 for mb in _gpus("memory.free", devices) if mb.isdigit()), default=None)


def gpu_names(devices: str | None, count: int) -> str:
    """Names of the first ``count`` of the GPUs: ``NVIDIA H100 x 2``; ``gpu`` where unknown."""
    names = _gpus("name", devices)[:count]
    return ", ".join(n if names.count(n) == 1 else f"{n} x {names.count(n)}" for n in dict.fromkeys(names)) or "gpu"


def _gpus(what: str, devices: str | None) -> list[str]:
    """A property of the GPUs, by the driver's own tool; empty where it does not say."""
    command = ["nvidia-smi", f"--query-gpu=index,{what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.partition(",") for line in done.stdout.strip().split("\n")]
    wanted = None if devices is None else set(devices.split(","))
    return [value.strip() for number, _, value in rows if wanted is None or number.strip() in wanted]
