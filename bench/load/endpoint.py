"""An OpenAI endpoint as what is measured: its models, its key, what a request to it says. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from bench.load.drive import How
from bench.load.http_drive import HttpDrive
from bench.load.records import RequestRecord
from bench.load.spec import LoadSpec
from bench.load.workload import Ask
from bench.record import Variant
from bench.variants import parse_variant
from pipo.engine.types import METHODS, Method
from pipo.errors import BadInput

ASK_S = 10.0
MOST_KEY = 4096
# What servers like vLLM and SGLang understand beyond the standard; an endpoint that refuses gets less.
EXTRAS = ("return_token_ids", "continuous_usage_stats", "ignore_eos")
LEVELS = (EXTRAS, ("stream_options", "ignore_eos"), ("stream_options",), ())
SAID = {
    0: None,
    1: "the endpoint refuses return_token_ids: tokens a chunk are a guess where it has no running usage",
    2: "the endpoint refuses ignore_eos: answers may be shorter than asked for",
    3: "the endpoint refuses stream_options: tokens are counted as one a chunk",
}


class Endpoint(NamedTuple):
    """Where requests go. ``level``: place in LEVELS of what the endpoint understands."""

    url: str
    headers: dict[str, str]
    settings: LoadSpec
    level: int = 0

    @property
    def target(self) -> str:
        """The address of completions."""
        return f"{self.url}/{'chat/completions' if self.settings.api == 'chat' else 'completions'}"


def connect(settings: LoadSpec) -> tuple[Endpoint, list[str]]:
    """An endpoint and the models that it lists (none where it does not say).

    Raises:
        BadInput: nothing answers there, it wants another key, or the key's file cannot be used.
    """
    assert settings.url is not None
    base = settings.url.rstrip("/")
    url = base if base.endswith("/v1") else f"{base}/v1"
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    if settings.api_key_file is not None:
        headers["Authorization"] = f"Bearer {read_key(settings.api_key_file)}"
    endpoint = Endpoint(url, headers, settings)
    try:
        answer = httpx.get(f"{url}/models", headers=headers, timeout=ASK_S, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as e:
        raise BadInput(
            f"nothing answers at {url} ({e or type(e).__name__}); start the server, or name another --url"
        ) from e
    if answer.status_code in (401, 403):
        raise BadInput(
            f"{url} wants another key (HTTP {answer.status_code}); name the file that has it: --api-key-file"
        )
    try:
        return endpoint, [str(m["id"]) for m in answer.json()["data"]] if answer.status_code == 200 else []
    except (ValueError, KeyError, TypeError, RecursionError):
        return endpoint, []


def read_key(path: str) -> str:
    """The key in a file: its one line. Raises BadInput where there is none; no message repeats it."""
    try:
        text = Path(path).expanduser().read_bytes()[: MOST_KEY + 1].decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"cannot read the key in {path} ({type(e).__name__}); the file has one line, the key") from e
    if not text or len(text) > MOST_KEY or any(c.isspace() or not c.isprintable() for c in text):
        raise BadInput(f"{path} holds no key; the file has one line, the key, without blanks")
    return text


def variants_of(given: list[Any] | None, listed: list[str]) -> list[Variant]:
    """Variants of an endpoint: ``MODEL``, ``NAME=MODEL``, ``NAME=MODEL:METHOD[:KEY=VALUE,...]``; or its first model.

    Raises:
        BadInput: another form, two of one name, a model that the endpoint does not list, or none to choose.
    """
    if not given:
        if not listed:
            raise BadInput("the endpoint lists no models at /v1/models; name one: pipo bench load MODEL --url ...")
        return [Variant(listed[0], listed[0], Method())]
    found = [_variant(v, listed) for v in given]
    names = [v.name for v in found]
    for v in found:
        if names.count(v.name) > 1:
            raise BadInput(f"two variants are named {v.name!r}; give each its own name: NAME=MODEL")
        if listed and v.model not in listed:
            raise BadInput(f"the endpoint has no model {v.model!r}; it lists {', '.join(listed[:20])}")
    return found


def _variant(value: Any, listed: list[str]) -> Variant:
    if not isinstance(value, str) or not value:
        raise BadInput(f"variant {value!r} of an endpoint must read MODEL, NAME=MODEL or NAME=MODEL:METHOD:KEY=VALUE")
    if value in listed:
        return Variant(value, value, Method())
    name, equals, model = value.partition("=")
    if equals and model in listed:
        return Variant(name, model, Method())
    parts = value.split(":")
    if equals and any(p in METHODS for p in parts[1:]):
        return parse_variant(value)
    return Variant(name, model if equals else name, Method())


def body_of(endpoint: Endpoint, variant: Variant) -> Callable[[Ask], dict[str, Any]]:
    """What a request to a variant says."""
    s, level = endpoint.settings, LEVELS[endpoint.level]
    head: dict[str, Any] = {"model": variant.model, "stream": True, **_sampling(s)}
    if endpoint.level < 3:
        head["stream_options"] = {"include_usage": True}
    if "continuous_usage_stats" in level:
        head["stream_options"]["continuous_usage_stats"] = True
    if "return_token_ids" in level:
        head["return_token_ids"] = True
    if variant.method.name == "pipo":
        head["custom_params"] = {"threshold": variant.method.threshold}

    def body(ask: Ask) -> dict[str, Any]:
        made = {**head, "seed": ask.seed & 0x7FFFFFFF, "max_tokens": ask.max_tokens}
        if "ignore_eos" in level and ask.ignore_eos:
            made["ignore_eos"] = True
        if s.api == "chat":
            made["messages"] = list(ask.messages)
        else:
            made["prompt"] = list(ask.ids) if ask.ids else ask.text
        return {**made, **s.extra_body}

    return body


def _sampling(s: LoadSpec) -> dict[str, Any]:
    """The settings that an endpoint may not have by default; what is off is left out."""
    p = s.sampling
    out: dict[str, Any] = {"temperature": p.temperature, "top_p": p.top_p}
    for name, off in (("top_k", 0), ("min_p", 0.0), ("presence_penalty", 0.0), ("frequency_penalty", 0.0)):
        if getattr(p, name) != off:
            out[name] = getattr(p, name)
    return out


def negotiate(endpoint: Endpoint, variant: Variant, ask: Ask, check: Callable[[], None]) -> tuple[Endpoint, str | None]:
    """The endpoint at the level that it understands, by one short request a level, and what a person should know.

    An endpoint that answers none of them stays as it is: the measured requests say what is wrong.
    """
    for level in range(len(LEVELS)):
        tried = endpoint._replace(level=level)
        r = ask_once(tried, variant, ask, check)
        if r.status == "ok":
            return tried, SAID[level]
        if not (r.error or "").startswith(("HTTP 400", "HTTP 422")):
            break
    return endpoint, None


def ask_once(endpoint: Endpoint, variant: Variant, ask: Ask, check: Callable[[], None]) -> RequestRecord:
    """One request now, which is not counted."""
    drive = HttpDrive(
        endpoint.target, endpoint.headers, body_of(endpoint, variant), "warm-up", variant.name, check=check
    )
    how = How(concurrency=1, timeout_s=endpoint.settings.timeout_s)
    return drive.run([ask], how).records[0]
