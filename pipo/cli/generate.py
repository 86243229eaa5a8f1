"""``pipo generate``: one prompt, one sample, tokens as they come."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipo.cli import options as o

if TYPE_CHECKING:
    from pipod.messages import JobEvent


def register(app: typer.Typer) -> None:
    app.command("generate")(run)


def run(
    model: Annotated[str, typer.Argument(help="A lab name such as lab/pipo-opd, or a model folder.")],
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from stdin.")],
    method: o.MethodOpt = None,
    threshold: o.Threshold = None,
    depth: o.Depth = None,
    keep_rate: o.KeepRate = None,
    slots: o.Slots = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Budget in tokens.")] = None,
    seed: o.Seed = 0,
    temperature: o.Temperature = None,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    presence_penalty: o.Presence = None,
    frequency_penalty: o.Frequency = None,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="End where the text comes to this; it is left out. Repeat.")
    ] = None,
    logprobs: Annotated[
        int | None,
        typer.Option("--logprobs", min=0, max=100, help="Also each token's log-probability and the N likeliest."),
    ] = None,
    engine: o.Engine = "torch",
    cpu_rig: o.CpuRig = False,
    devices: o.Devices = None,
    tp: o.Tp = None,
    dp: o.Dp = None,
    memory_fraction: o.MemoryFraction = None,
    radix_cache: o.RadixCache = None,
    family: o.Family = None,
    json: o.Json = False,
    detach: o.Detach = False,
) -> None:
    """Generate one sample, shown as it comes. On a terminal, drafts that were kept are underlined."""
    from pipo.cli.follow import run_job
    from pipo.errors import BadInput

    text = sys.stdin.read() if prompt == "-" else prompt  # as it is: chat prompts end with a newline
    if not text:
        raise BadInput("the prompt is empty; give at least one word")
    if "" in (stop or ()):
        raise BadInput("a stop string is empty; give --stop at least one character")
    lab = o.check_family(family)
    spec = o.without_none(
        family=lab,
        method=o.check_method(method, threshold, depth, keep_rate),
        sampling=o.check_sampling(temperature, top_k, top_p, min_p, presence_penalty, frequency_penalty) or None,
        model=o.check_model(model, lab),
        **o.check_engine(engine, cpu_rig, devices, tp, dp, memory_fraction, radix_cache),
        prompt=text,
        seed=seed,
        max_slots=slots,
        max_tokens=tokens,
        stop=stop,
        logprobs=logprobs,
    )
    stream = _Stream(silent=json)
    run_job("generate", spec, as_json=json, detach=detach, show=stream.end, on_event=stream.event)


class _Stream:
    """Prints token events as they come; the figures of the sample at the end, on stderr."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._colour = sys.stdout.isatty()
        self._printed = False

    def event(self, event: JobEvent) -> bool:
        if event.kind != "token":
            return event.kind == "progress"  # a bar would run into the text
        if not self._silent:
            text = str(event.data.get("text", ""))
            kept = self._colour and event.data.get("kept") is True
            sys.stdout.write(f"\x1b[4m{text}\x1b[24m" if kept else text)
            sys.stdout.flush()
            self._printed = True
        return True

    def end(self, result: dict[str, Any]) -> None:
        from pipo.cli.output import note, print_table

        print("" if self._printed else result.get("text", ""))
        if known := result.get("logprobs"):
            rows = [
                [
                    repr(t["text"]),
                    f"{t['logprob']:.4f}",
                    " ".join(f"{x['text']!r} {x['logprob']:.4f}" for x in t["top"]),
                ]
                for t in known
            ]
            print_table(["token", "log p", "likeliest"], rows, left=["likeliest"])
        parts = [f"{result.get('tokens')} tokens in {result.get('slots')} slots, ended by {result.get('finish')}"]
        if result.get("kept_share") is not None:
            parts.append(f"{100 * result['kept_share']:.0f} % of {result.get('offered')} drafts kept")
        if result.get("ttft_s") is not None and (result.get("tpot_s") or -1) > 0:
            first, later = 1000 * result["ttft_s"], 1000 * result["tpot_s"]
            parts.append(f"first token {first:.1f} ms, then {later:.1f} ms a token")
        note(" · ".join(parts))
