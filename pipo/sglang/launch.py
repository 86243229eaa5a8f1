"""From settings to the command line and environment of an SGLang server, with every check that needs no server.

Loads neither torch nor sglang, so that the command line may import it. What is wrong is said before anything loads.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from pipo.config import child_environment
from pipo.engine.types import Method
from pipo.errors import BadInput
from pipo.sglang import machine
from pipo.sglang.facts import Facts, read_facts
from pipo.sglang.rig import environment
from pipo.sglang.table import VERSION

LOOPBACK = "127.0.0.1"
PLAIN_CHAT = Path(__file__).with_name("plain_chat.jinja")  # the messages' texts one after another
MAX_RUNNING = 64
RIG_CACHE = 65_536  # backbone places that all requests share on the CPU rig: 32 MB for a lab model
SMALL = 50_000_000  # parameters; below it one thread computes faster than many (pipo.model.threads)

DRAFTING = ("eagle", "mtp")  # methods that need the MTP head of a regular model
OVERRIDE = "--json-model-override-args"

# Flags that --  passes on may not undo what is checked or set here.
OURS = (
    "--model", "--model-path", "--host", "--port", "--load-format", "--device", "--tp", "--tp-size",
    "--tensor-parallel-size", "--dp", "--dp-size", "--data-parallel-size",
)  # fmt: skip
REFUSED = {
    "--trust-remote-code": "it runs code out of the model folder, and no model of ours has any",
    "--enable-dp-attention": "attention split over requests is not made for pairs; --dp copies the model instead",
    "--attn-dp-size": "attention split over requests is not made for pairs; --dp copies the model instead",
    "--api-key": "other users see it in the process list; write it to a file and give --api-key-file",
    "--admin-api-key": "other users see it in the process list; write it to a file and give --api-key-file",
}


class ServerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an SGLang server runs. None leaves a choice to SGLang.

    ``cpu_rig``: on the CPU, with stand-ins for CUDA-only kernels. ``devices``: GPUs by number, ``0,1``. ``tp``: GPUs
    that share one copy of the model, ``dp``: copies. ``host``, ``port``: where it listens; default loopback, a free
    port. ``memory_fraction``: of a device's memory, for weights and caches. ``max_running``: requests at a time.
    ``context``: backbone places of a request, pairs for PIPO. ``max_total``: backbone places of all requests.
    ``chunk``: places of one prefill pass. ``flags``: passed on to SGLang as they are.
    """

    cpu_rig: bool = False
    devices: str | None = None
    tp: int = 1
    dp: int = 1
    host: str | None = None
    port: int | None = None
    memory_fraction: float | None = None
    max_running: int | None = None
    context: int | None = None
    max_total: int | None = None
    chunk: int | None = None
    radix_cache: bool = True
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tp", "dp", "max_running", "context", "max_total", "chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"{name} {value} must be at least 1")
        if self.memory_fraction is not None and not 0 < self.memory_fraction < 1:
            raise BadInput(f"memory fraction {self.memory_fraction} must lie between 0 and 1")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise BadInput(f"port {self.port} must lie in [1, 65535]")
        self._check_devices()
        _check_flags(self.flags)

    def _check_devices(self) -> None:
        if self.devices is None:
            return
        if self.cpu_rig:
            raise BadInput(f"devices {self.devices} and the CPU rig exclude each other; name one of them")
        numbers = self.devices.split(",")
        if not all(n.isdigit() for n in numbers) or len(set(numbers)) < len(numbers):
            raise BadInput(f"devices {self.devices!r} must be numbers of GPUs with commas between them, each once: 0,1")
        if self.tp * self.dp > len(numbers):
            raise BadInput(
                f"tp {self.tp} times dp {self.dp} needs {self.tp * self.dp} GPUs, devices {self.devices} are "
                f"{len(numbers)}; name more, or lower one of the two"
            )


def _check_flags(flags: tuple[str, ...]) -> None:
    for flag in flags:
        name = flag.split("=")[0].replace("_", "-")
        if name in REFUSED:
            raise BadInput(f"{name} is not passed on to SGLang: {REFUSED[name]}")
        if name in OURS:
            raise BadInput(f"{name} is set by pipo; use its own options (`pipo serve --help`) instead of passing it on")


class Way(NamedTuple):
    """How SGLang runs a method: its flags, or why it is refused."""

    flags: Callable[[Method], list[str]] = lambda method: []
    refused: str | None = None


def _chain(name: str, depth: int) -> list[str]:
    """SGLang's NEXTN with a chain of drafts, told which method of ours it is for (``hooks.eagle``)."""
    return [
        "--speculative-algorithm", "NEXTN", "--speculative-eagle-topk", "1", "--speculative-num-steps", str(depth),
        "--speculative-num-draft-tokens", str(depth + 1), "--disable-overlap-schedule",
        OVERRIDE, json.dumps({"pipo_method": name}),
    ]  # fmt: skip


WAYS: dict[str, Way] = {
    # The penalties of a step must have seen the step before it, which the overlap schedule has not finished yet; and
    # all methods are compared under one schedule.
    "regular": Way(lambda method: ["--disable-overlap-schedule"]),
    "pipo": Way(lambda method: ["--disable-overlap-schedule"]),
    "eagle": Way(lambda method: _chain("eagle", method.depth)),
    # A prefix hit of a hybrid could bring rows of the MTP layer that were written before another token. Where drafts
    # are verified that costs acceptance, here it would cost the result.
    "mtp": Way(lambda method: [*_chain("mtp", 1), "--speculative-use-rejection-sampling", "--disable-radix-cache"]),
    "random": Way(refused="the coin flip is a control for studies, made for the torch engine only; use --engine torch"),
}


def check_method(facts: Facts, method: Method, whose: str = "") -> None:
    """Raise BadInput where SGLang, or this model, cannot decode by a method; ``whose`` begins the message."""
    if method.pairs and not facts.is_pipo:
        raise BadInput(f"{whose}method {method.name} needs a PIPO model, {facts.folder} has no compressor")
    if facts.is_pipo and not method.pairs:
        raise BadInput(f"{whose}{facts.folder} is a PIPO model, decode it with pipo, not {method.name}")
    if method.name in DRAFTING and not facts.has_mtp:
        raise BadInput(
            f"{whose}method {method.name} drafts with a model's MTP head, and {facts.folder} has no mtp.* weights; "
            "use regular"
        )
    if (why := WAYS[method.name].refused) is not None:
        raise BadInput(f"{whose}method {method.name} does not run in SGLang: {why}")


def check_drafting(method: Method, s: ServerSettings) -> None:
    """Raise BadInput where flags that are passed on would undo what a method with drafts stands on."""
    for flag in s.flags if method.name in DRAFTING else ():
        if flag.startswith(("--speculative-", OVERRIDE)):
            raise BadInput(f"{flag.split('=')[0]} is set by pipo for method {method.name}: leave it out")


def default_method(folder: Path) -> Method:
    """The method that a model was made for, from its folder alone. Raises BadModel."""
    return Method("pipo" if read_facts(folder).is_pipo else "regular")


class Launch(NamedTuple):
    """A server that can be started: its command, its environment, where it will listen. ``secret``: its API key."""

    command: list[str]
    environment: dict[str, str]
    host: str
    port: int
    name: str
    secret: str | None = None


def unusable(settings: ServerSettings) -> str | None:
    """Why SGLang cannot be used on this machine by these settings; None where it can."""
    found = machine.installed("sglang")
    if found is None:
        return f"sglang is not installed; `make rig` brings {VERSION} for a CPU, `pip install 'pipo[sglang]'` for a GPU"
    if found != VERSION:
        return f"sglang {found} is installed, pipo's hooks are for {VERSION}; install that one"
    if not any(e.value == "pipo.sglang.plugin:activate" for e in entry_points(group="sglang.srt.plugins")):
        return "SGLang would not find pipo's plugin: pipo is not installed in this environment; run `pip install -e .`"
    if not settings.cpu_rig and not machine.has_gpu() and "--device" not in settings.flags:
        return "no GPU is seen here; --cpu-rig runs SGLang on the CPU: slowly, and for small models"
    return None


def plan(
    folder: Path, method: Method, settings: ServerSettings, *, name: str | None = None, secret: str | None = None,
    streaming: bool = True,
) -> Launch:  # fmt: skip
    """Check everything and say how to start. ``streaming``: chunks carry what is new only (the engine reads them so).

    Raises:
        BadInput: sglang missing or of another version, no GPU, a method that does not run, a port in use, too little
            memory.
        BadModel: a folder that cannot be served.
    """
    if (why := unusable(settings)) is not None:
        raise BadInput(why)
    facts = read_facts(folder)
    check_method(facts, method)
    check_drafting(method, settings)
    machine.check_memory(facts.parameters, on_cpu=settings.cpu_rig, tp=settings.tp, devices=settings.devices)
    host = settings.host or LOOPBACK
    port = settings.port or machine.free_port(host)
    machine.check_port(host, port)
    return Launch(
        command_line(facts, method, settings, host, port, name or str(folder), streaming),
        server_environment(facts, settings), host, port, name or str(folder), secret,
    )  # fmt: skip


def command_line(
    facts: Facts, method: Method, s: ServerSettings, host: str, port: int, name: str, streaming: bool
) -> list[str]:
    """The command of a server. ``-P``: modules lying about in the user's folder are no part of it."""
    options: dict[str, Any] = {
        "--model-path": facts.folder, "--served-model-name": name, "--load-format": "safetensors", "--host": host,
        "--port": port, "--tp-size": s.tp, "--dp-size": s.dp, "--mem-fraction-static": s.memory_fraction,
        "--max-running-requests": s.max_running or MAX_RUNNING, "--context-length": s.context,
        "--max-total-tokens": s.max_total, "--chunked-prefill-size": s.chunk, "--log-level-http": "warning",
        "--decode-log-interval": 1000,
    }  # fmt: skip
    switches = [] if s.radix_cache else ["--disable-radix-cache"]
    if streaming:
        switches.append("--incremental-streaming-output")
    if not facts.has_tokenizer:
        switches.append("--skip-tokenizer-init")  # ids in, ids out
    elif not facts.has_chat_template:
        options["--chat-template"] = PLAIN_CHAT
    if s.cpu_rig:
        options |= _rig_options(s)
        switches.append("--disable-overlap-schedule")  # it needs state snapshots, which SGLang has for GPUs only
    elif facts.is_pipo:
        # The second phase of a step reads the first one's hidden states, which must come out of a CUDA graph.
        switches.append("--enable-return-hidden-states")
    flat = [text for key, value in options.items() if value is not None for text in (key, str(value))]
    switches += [f for f in WAYS[method.name].flags(method) if f not in switches]
    return [sys.executable, "-P", "-m", "sglang.launch_server", *flat, *switches, *s.flags]


def _rig_options(s: ServerSettings) -> dict[str, Any]:
    rows = s.max_running or MAX_RUNNING
    return {
        "--device": "cpu", "--sampling-backend": "pytorch", "--dtype": "float32",
        # The one under which SGLang drafts on a CPU, the same for all methods; the rig's stand-ins need no AMX.
        "--prefill-attention-backend": "intel_amx", "--decode-attention-backend": "intel_amx",
        "--cuda-graph-backend-decode": "disabled", "--cuda-graph-backend-prefill": "disabled",
        # Without sizes of its own SGLang takes a share of all memory for caches; states are kept for prefixes as well.
        "--max-total-tokens": s.max_total or RIG_CACHE, "--max-mamba-cache-size": 4 * rows,
        "--mem-fraction-static": s.memory_fraction or 0.5,
    }  # fmt: skip


def threads(facts: Facts, s: ServerSettings) -> int:
    """Threads that a server computes with on the CPU."""
    return 1 if s.cpu_rig and facts.parameters < SMALL else os.cpu_count() or 1


def server_environment(facts: Facts, s: ServerSettings) -> dict[str, str]:
    """The environment of a server's processes."""
    env = child_environment()
    env.pop("SGLANG_PLUGINS", None)  # a list of other people's could leave ours out
    env |= {
        "SGLANG_RETURN_ORIGINAL_LOGPROB": "1",  # before temperature and filters, as in our own engine
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",  # its probe is token 0, which may be a model's PAD
        "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    if s.devices is not None:
        env["CUDA_VISIBLE_DEVICES"] = s.devices
    if s.cpu_rig:
        env = environment(env)
        env["OMP_NUM_THREADS"] = str(threads(facts, s))
    return env
