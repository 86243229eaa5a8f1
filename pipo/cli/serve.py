"""``pipo serve``: SGLang's own OpenAI-compatible server over one of our models, in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipo.cli import options as o

if TYPE_CHECKING:
    from pipo.sglang.launch import ServerSettings
    from pipo.sglang.server import Server

EXAMPLE = """\
{name} answers at {url}/v1 (OpenAI's protocol), until Ctrl-C. Try:

curl {url}/v1/completions -H 'Content-Type: application/json'{curl_key} -d '{{"model": "{name}", "prompt": "...", \
"max_tokens": 64{curl_extra}}}'

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key={key})
client.completions.create(model="{name}", prompt="...", max_tokens=64{extra})
"""


def register(app: typer.Typer) -> None:
    app.command("serve")(run)


def run(
    model: Annotated[str, typer.Argument(help="A lab name such as lab/pipo-opd, or a model folder.")],
    flags: Annotated[
        list[str] | None, typer.Argument(metavar="[-- FLAGS OF SGLANG...]", help="Passed on as they are.")
    ] = None,
    method: o.MethodOpt = None,
    cpu_rig: o.CpuRig = False,
    host: Annotated[
        str | None, typer.Option("--host", help="Listen there; others can then reach it. [default: 127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="[default: a free one]")] = None,
    devices: o.Devices = None,
    tp: o.Tp = None,
    dp: o.Dp = None,
    memory_fraction: o.MemoryFraction = None,
    radix_cache: o.RadixCache = None,
    max_running: Annotated[
        int | None, typer.Option("--max-running", min=1, help="Requests at a time; others wait. [default: 64]")
    ] = None,
    context: Annotated[
        int | None, typer.Option("--context", min=2, help="Most backbone places of a request, pairs for PIPO.")
    ] = None,
    max_total: Annotated[
        int | None, typer.Option("--max-total", min=2, help="Backbone places that all requests share.")
    ] = None,
    chunk: Annotated[int | None, typer.Option("--chunk", min=1, help="Backbone places of one prefill pass.")] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="File with the key that clients must give.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="What clients call the model. [default: MODEL]")] = None,
    family: o.Family = None,
) -> None:
    """Serve a model over HTTP with SGLang: OpenAI's protocol, many requests at a time, more than one GPU."""
    from pipo.cli.output import note
    from pipo.engine.types import Method
    from pipo.errors import BadInput
    from pipo.lab import resolve_model
    from pipo.sglang import launch
    from pipo.sglang.server import Server

    if flags and not flags[0].startswith("-"):
        raise BadInput(f"unexpected {flags[0]!r}; one model is served, flags of SGLang come after --")
    settings = launch.ServerSettings(
        **o.without_none(
            cpu_rig=cpu_rig, host=host, port=port, devices=devices, tp=tp, dp=dp, memory_fraction=memory_fraction,
            radix_cache=radix_cache, max_running=max_running, context=context, max_total=max_total, chunk=chunk,
        ),
        flags=tuple(flags or ()),
    )  # fmt: skip
    lab = o.check_family(family)
    o.check_model(model, lab)
    folder = Path(resolve_model(model, lab)).absolute()
    way = o.check_method(method)
    asked = Method(**way) if way else launch.default_method(folder)
    server = Server(
        launch.plan(folder, asked, settings, name=name or model, secret=read_key(api_key_file), streaming=False)
    )
    if settings.host not in (None, launch.LOOPBACK, "localhost", "::1") and api_key_file is None:
        note(f"warning: whoever reaches {server.url} may use it, without any password; --api-key-file asks for a key")
    _serve(server, asked.pairs, settings)


def read_key(file: Path | None) -> str | None:
    """The key in a file. Raises BadInput where there is none of one line."""
    from pipo.errors import BadInput

    if file is None:
        return None
    try:
        key = file.expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"{file} cannot be read ({e}); --api-key-file takes a file with the key in one line") from e
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise BadInput(f"{file} holds no key; it must be one line of printable characters without spaces")
    return key


def _serve(server: Server, pairs: bool, settings: ServerSettings) -> None:
    from pipo.cli.output import note
    from pipo.errors import JobFailed

    launch = server.launch
    note(f"starting SGLang for {launch.name}; its log is {server.log}")
    try:
        server.start(lambda stage: note(f"  {stage}"))
        locked = launch.secret is not None
        print(
            EXAMPLE.format(
                name=launch.name, url=server.url, key="open(KEY_FILE).read().strip()" if locked else '"none"',
                curl_key=" -H \"Authorization: Bearer $(cat KEY_FILE)\"" if locked else "",
                curl_extra=', "custom_params": {"threshold": 0.95}' if pairs else "",
                extra=', extra_body={"custom_params": {"threshold": 0.95}}' if pairs else "",
            ),
            flush=True,
        )  # fmt: skip
        while not server.wait(1.0):
            pass
        raise JobFailed(f"SGLang ended: {server.reason()}; its log is {server.log}")
    except KeyboardInterrupt:
        note("stopping")
        raise
    finally:
        server.stop()
