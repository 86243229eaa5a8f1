"""Settings of the job ``load``, checked. Torch-free."""

from __future__ import annotations

import math
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from bench.engines import EngineSpec
from bench.load.arrivals import KINDS, Kind
from pipo.engine.types import Sampling
from pipo.errors import BadInput

Api = Literal["completions", "chat"]
LIMITS = ("ttft", "first_pair", "tpot", "gap", "e2e")
REQUESTS, TRACE_REQUESTS, PROBE_S = 100, 200, 20.0
DEFAULT_RATE = 2.0
MOST_REQUESTS = 100_000


class LoadSpec(EngineSpec, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of ``load``: what is asked (models), how requests come, what a request is, what counts as good.

    Models: ``variants`` as in ``compare`` on an engine of ours; with ``url`` an OpenAI endpoint's (``MODEL``,
    ``NAME=MODEL`` or ``NAME=MODEL:METHOD:...``; default the first one that it lists), with ``api_key_file``, ``api``,
    ``extra_body`` (added to each request) and ``tokenizer`` (a model here whose ids prompts are made of).

    One of: ``rates`` (requests a second, open loop, ``arrivals`` with ``burstiness``), ``concurrency`` (closed loop),
    ``trace`` (a name of bench/load/traces.py or a path, ``speedup`` times as fast), ``find_rate`` (needs ``slo``; the
    share that meets it stays at or above ``target``, to a factor of ``precision``, from the first of ``rates``).
    ``requests``, ``duration_s``: of each point, whatever ends first; without both 100, of a trace 200, of a search's
    probe as many as come in 20 s (a short probe ends before its queue has grown), at least 100.

    A request is an item of ``task`` (scored), one of the trace (lengths times ``scale``), or ``input_tokens`` random
    ones with ``output_tokens`` to come. ``slo``: limits in seconds by name (LIMITS), all of which a request must meet.
    ``timeout_s``: from when a request is due. ``warmup``: requests before each point that are not counted.
    """

    variants: list[Any] | None = None
    url: str | None = None
    api_key_file: str | None = None
    api: Api = "completions"
    extra_body: dict[str, Any] = {}
    tokenizer: str | None = None
    rates: list[float] | None = None
    concurrency: list[int] | None = None
    trace: str | None = None
    speedup: float = 1.0
    scale: float | None = None
    arrivals: Kind = "poisson"
    burstiness: float = 1.0
    find_rate: bool = False
    target: float = 0.95
    precision: float = 1.1
    requests: int | None = None
    duration_s: float | None = None
    input_tokens: int = 64
    output_tokens: int = 64
    task: str | None = None
    thinking: bool | None = None
    data: str | None = None
    slots: int | None = None
    slo: dict[str, float] = {}
    timeout_s: float = 120.0
    warmup: int = 2
    seed: int = 0
    sampling: Sampling = Sampling()
    max_batch: int = 64
    family: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_ways()
        self._check_endpoint()
        self._check_numbers()
        for name, limit in self.slo.items():
            if name not in LIMITS:
                raise BadInput(f"unknown limit {name!r} of an SLO; limits are {', '.join(LIMITS)}, in seconds")
            if not (math.isfinite(limit) and limit > 0):
                raise BadInput(f"limit {name} {limit} of the SLO must be a finite number of seconds above 0")
        if self.find_rate and not self.slo:
            raise BadInput(
                "a search for the highest rate needs an SLO that requests must meet; e.g. ttft=0.5,tpot=0.02"
            )

    def _check_ways(self) -> None:
        ways = {
            "rates": self.rates and not self.find_rate, "concurrency": self.concurrency, "trace": self.trace,
            "find_rate": self.find_rate,
        }  # fmt: skip
        given = [name for name, value in ways.items() if value]
        if len(given) > 1:
            raise BadInput(f"{' and '.join(given)} exclude each other: name one way for requests to come")
        for rate in self.rates or ():
            if not (math.isfinite(rate) and rate > 0):
                raise BadInput(f"rate {rate} must be a finite number above 0, in requests a second")
        for number in self.concurrency or ():
            if number < 1:
                raise BadInput(f"concurrency {number} must be at least 1")
        for name in ("rates", "concurrency"):
            values = getattr(self, name) or []
            if len(set(values)) < len(values):
                raise BadInput(f"{name} {values} name one twice; name each once")
        if self.task is not None and self.trace is not None:
            raise BadInput(
                f"task {self.task} and trace {self.trace} exclude each other: a trace has lengths, no questions"
            )
        if self.arrivals not in KINDS:
            raise BadInput(f"arrivals {self.arrivals!r} must be one of {', '.join(KINDS)}")
        if self.burstiness != 1.0 and self.arrivals != "gamma":
            raise BadInput(
                f"burstiness {self.burstiness} has no effect on {self.arrivals} arrivals; name arrivals gamma"
            )

    def _check_endpoint(self) -> None:
        if self.url is None:
            for name, usual in (
                ("api_key_file", None),
                ("api", "completions"),
                ("extra_body", {}),
                ("tokenizer", None),
            ):
                if getattr(self, name) != usual:
                    raise BadInput(f"{name} has no effect without a url; name the endpoint, or leave it out")
            return
        if self.on_sglang:
            raise BadInput("a url and engine sglang exclude each other: the endpoint runs whatever it runs")
        try:
            parts = urlsplit(self.url)
            port_is_none = parts.port is None
        except ValueError as e:
            raise BadInput(f"url {self.url!r} cannot be read ({e}); e.g. http://127.0.0.1:8000") from e
        if parts.scheme not in ("http", "https") or not parts.hostname or (port_is_none and parts.netloc.endswith(":")):
            raise BadInput(f"url {self.url!r} must begin with http:// or https:// and name a host")
        if parts.username or parts.password:
            raise BadInput("a url with a name or password in it would be kept in records; put the key into a file")

    def _check_numbers(self) -> None:
        least = {
            "requests": 1,
            "input_tokens": 1,
            "output_tokens": 1,
            "max_batch": 1,
            "slots": 1,
            "warmup": 0,
            "seed": 0,
        }
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise BadInput(f"{name} {value} must be at least {lowest}")
        for name in ("speedup", "scale", "burstiness", "duration_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise BadInput(f"{name} {value} must be a finite number above 0")
        if (self.requests or 0) > MOST_REQUESTS:
            raise BadInput(f"requests {self.requests} must be at most {MOST_REQUESTS}, a point is kept in memory")
        if not 0 < self.target <= 1:
            raise BadInput(f"target {self.target} must lie in (0, 1]; it is the share of requests that meet the SLO")
        if not 1.01 <= self.precision <= 4:
            raise BadInput(f"precision {self.precision} must lie in [1.01, 4]; 1.1 finds the rate to a tenth")

    @property
    def count(self) -> int | None:
        """Requests of a point; None where its duration alone says."""
        if self.requests is None and self.duration_s is None:
            return TRACE_REQUESTS if self.trace else REQUESTS
        return self.requests

    def probe_count(self, rate: float) -> int | None:
        """Requests of a search's probe at a rate; None where its duration alone says."""
        if self.requests is None and self.duration_s is None:
            return max(REQUESTS, math.ceil(PROBE_S * rate))
        return self.requests


def plain(settings: LoadSpec) -> dict[str, Any]:
    """The settings as plain values, without what does not decide results: where data lie, the key's file."""
    given: dict[str, Any] = msgspec.to_builtins(settings)
    for key in ("engine", "server", "data", "api_key_file"):
        del given[key]
    return given
