"""Fetching models and data sets from the hub into PIPO_HOME: for ``pipo models pull`` and ``pipo data pull``.

Weights are fetched as safetensors alone. Tokens are those of the hub's own login; nothing here reads or prints them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

TIMEOUT_S = 8.0
ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "LICENSE*", "README*")
# Formats that may hold code that runs when they are read; no include brings them.
NEVER = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.npz", "*.py", "*.h5", "*.msgpack")
SMOLLM2 = "smollm2"  # comes out of a Python package (pipo.model.sources), not from the hub

Id = Annotated[str, typer.Argument(metavar="ID", help="OWNER/NAME on the hub.")]
Revision = Annotated[str | None, typer.Option("--revision", help="A branch, tag or commit. [default: main]")]
Include = Annotated[
    list[str] | None, typer.Option("--include", metavar="PATTERN", help="Only files like this; repeat. [default: all]")
]


def pull_model(name: str, revision: str | None, include: Sequence[str] | None, as_json: bool) -> None:
    """Fetch a model, check that weights came, and say how it is named from now on."""
    from pipo.cli.output import note, print_json
    from pipo.config import paths
    from pipo.errors import BadModel

    if name == SMOLLM2:
        folder = _fetch_smollm2(revision, include)
    else:
        folder = fetch(name, "model", paths().models, revision, include, MODEL_FILES)
        if not include and not any(folder.glob("*.safetensors")):
            raise BadModel(f"{name} has no safetensors weights, and other formats are not read; name another model")
    if as_json:
        print_json({"id": name, "folder": str(folder)})
        return
    print(folder)
    note("name this folder where a model is asked for; `pipo models` lists it")


def pull_data(name: str, revision: str | None, include: Sequence[str] | None, as_json: bool) -> None:
    """Fetch a data set and say where it lies."""
    from pipo.cli.output import note, print_json
    from pipo.config import paths

    folder = fetch(name, "dataset", paths().datasets, revision, include, None)
    if as_json:
        print_json({"id": name, "folder": str(folder)})
        return
    print(folder)
    note("`pipo data import KIND FOLDER --out questions.jsonl` reads it")


def fetch(
    name: str, repo_type: str, root: Path, revision: str | None, include: Sequence[str] | None,
    usual: Sequence[str] | None,
) -> Path:  # fmt: skip
    """Download a repository to ``root/OWNER/NAME``; what is there whole already is not fetched again.

    Raises:
        BadInput: an id or pattern that cannot be, no hub in reach, no such repository or revision, no place to write.
    """
    from pipo.cli.output import note
    from pipo.errors import BadInput

    check(name, include)
    import httpx
    from huggingface_hub import HfApi, constants, errors, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    host, folder = constants.ENDPOINT, root / name
    elsewhere = f"fetch {name} on a machine that has the hub, copy its folder here and name that folder"
    if constants.HF_HUB_OFFLINE:
        raise BadInput(f"HF_HUB_OFFLINE is set, so nothing is fetched from {host}; unset it, or {elsewhere}")
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        info: Any = HfApi().repo_info(name, repo_type=repo_type, revision=revision, timeout=TIMEOUT_S)
        note(f"{name} at {info.sha} from {host} to {folder}")
        snapshot_download(
            name, repo_type=repo_type, revision=info.sha, local_dir=folder, etag_timeout=TIMEOUT_S,
            allow_patterns=list(include or usual or ()) or None, ignore_patterns=list(NEVER),
        )  # fmt: skip
    except errors.GatedRepoError as e:
        raise BadInput(f"{name} is gated; accept its terms on {host}, log in with `hf auth login`, try again") from e
    except errors.RepositoryNotFoundError as e:
        raise BadInput(f"{host} has no {repo_type} {name}, or hides it; check the id, or `hf auth login`") from e
    except errors.RevisionNotFoundError as e:
        raise BadInput(f"{name} has no revision {revision!r}; leave --revision out for main") from e
    except (httpx.HTTPError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError) as e:
        raise BadInput(
            f"{host} cannot be used ({cause(e)}); try again, it goes on where it stopped, or {elsewhere}"
        ) from e
    except OSError as e:
        raise BadInput(f"cannot write {folder} ({e.strerror or e}); free or fix it, then try again") from e
    return folder


def check(name: str, include: Sequence[str] | None) -> None:
    """Raise BadInput for an id of another form, or a pattern of files that are never fetched."""
    from pipo.errors import BadInput

    if not ID.fullmatch(name):
        raise BadInput(f"{name!r} is no id on the hub; one reads OWNER/NAME, e.g. Qwen/Qwen3.5-4B")
    for pattern in include or ():
        if pattern.endswith(tuple(p.removeprefix("*") for p in NEVER)):
            raise BadInput(
                f"--include {pattern}: such files may run code when they are read; safetensors alone are used"
            )


def cause(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _fetch_smollm2(revision: str | None, include: Sequence[str] | None) -> Path:
    """SmolLM2-135M by pip, in a process of its own since torch converts it."""
    from pipo.config import child_environment, paths
    from pipo.errors import BadInput

    if revision or include:
        raise BadInput(f"--revision and --include have no effect on {SMOLLM2}, which is one fixed file; leave them out")
    words = [sys.executable, "-m", "pipo.model.sources", SMOLLM2]
    done = subprocess.run(words, env=child_environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise BadInput(f"{SMOLLM2} was not made; the lines above say why")
    return Path(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else paths().models / SMOLLM2
