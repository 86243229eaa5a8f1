"""From settings to the command line of ms-swift, and back. Loads neither torch nor swift.

Settings that ms-swift has a flag for travel as that flag, so that whoever knows ms-swift may change it there; the
others lie in ``settings.json``, beside the ``plugin.py`` that ms-swift is told to import.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from pipo.config import child_environment, paths
from pipo.errors import BadInput
from pipo.lab.family import resolve_model
from pipo.sglang import machine
from pipo.train.plan import POOL
from pipo.train.settings import OPDSettings, SFTSettings, TrainSettings

VERSION = "4.6.0"
SETTINGS, PLUGIN, OUTPUT, EVENTS, RESULT, STOP, LOG = (
    "settings.json", "plugin.py", "swift", "events.jsonl", "result.json", "stop", "swift.log",
)  # fmt: skip
BEGINS = "begins"  # the event of a process whose training begins
TUNERS = {"lora": "pipo", "full": "full"}  # ours -> ms-swift's --tuner_type; "pipo" is registered by the plugin
STAGES: dict[str, type[TrainSettings]] = {"sft": SFTSettings, "opd": OPDSettings}
Stage = Literal["sft", "opd"]

# Ours -> ms-swift's flag, where both mean the same.
SHARED = {
    "lr": "learning_rate", "weight_decay": "weight_decay", "warmup": "warmup_ratio", "clip": "max_grad_norm",
    "epochs": "num_train_epochs", "save_every": "save_steps", "log_every": "logging_steps", "seed": "seed",
    "lora_rank": "lora_rank", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout",
    "gradient_checkpointing": "gradient_checkpointing",
}  # fmt: skip

PLUGIN_TEXT = '''"""Tells ms-swift about PIPO for the training whose settings lie beside this file. Written by pipo."""

from pathlib import Path

from pipo.swift.registry import register

register("{stage}", Path(__file__).with_name("{settings}"))
'''


class Command(NamedTuple):
    """``arguments`` of ``swift sft``; ``processes`` and ``port``: how torchrun starts it, where it is more than one."""

    arguments: list[str]
    processes: int = 1
    port: int | None = None

    @property
    def line(self) -> list[str]:
        """The processes that ``swift sft`` starts. ``-P``: modules lying about in a folder are no part of them."""
        spec = find_spec("swift")  # imports nothing
        assert spec is not None and spec.origin is not None
        script = Path(spec.origin).parent / "cli" / "sft.py"
        python = [sys.executable, "-P"]
        if self.processes > 1:
            python += ["-m", "torch.distributed.run", "--nproc_per_node", str(self.processes)]
            python += [] if self.port is None else ["--master_port", str(self.port)]
        return [*python, str(script), *self.arguments]

    @property
    def variables(self) -> dict[str, str]:
        """What ms-swift reads from the environment: how many processes, and where they meet."""
        if self.processes == 1:
            return {}
        found = {"NPROC_PER_NODE": str(self.processes)}
        return found if self.port is None else found | {"MASTER_PORT": str(self.port)}

    def environment(self) -> dict[str, str]:
        """The environment of its processes."""
        env = child_environment() | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        for name in ("NPROC_PER_NODE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK",
                     "WORLD_SIZE"):  # fmt: skip
            env.pop(name, None)  # of another launcher; this one is a job of its own
        return env

    def shown(self) -> str:
        """The command as a person would type it."""
        words = [f"{k}={v}" for k, v in self.variables.items()] + ["swift", "sft"]
        lines, flag = [" ".join(words)], ""
        for word in self.arguments:
            if word.startswith("--"):
                flag = word
                lines.append(f"  {flag}")
            else:
                lines[-1] += f" {shlex.quote(word)}"
        return " \\\n".join(lines)


def unusable(s: TrainSettings) -> str | None:
    """Why ms-swift cannot train by these settings on this machine; None where it can."""
    found = machine.installed("ms-swift")
    if found is None:
        return (
            f"ms-swift is not installed; `make swift` brings {VERSION} for a CPU, `pip install 'pipo[swift]'` for GPUs"
        )
    if found != VERSION:
        return f"ms-swift {found} is installed, pipo's plugin is for {VERSION}; install that one"
    if s.optimizer != "adamw":
        return f"optimizer {s.optimizer} runs on the torch backend only; on backend swift use optimizer=adamw"
    if s.warmup >= 1:
        return f"warmup {s.warmup} must be below 1 on backend swift"
    if isinstance(s, OPDSettings) and s.engine != "torch" and s.processes > 1:
        return "roll-outs by an SGLang server come from one process; on backend swift use engine=torch, or processes=1"
    if s.deepspeed is not None:
        if on_cpu(s):
            return f"deepspeed {s.deepspeed} needs GPUs, and this training is on the CPU; leave it out"
        if machine.installed("deepspeed") is None:
            return (
                f"deepspeed {s.deepspeed} needs the package deepspeed, which is not installed; `pip install deepspeed`"
            )
    return None


def on_cpu(s: TrainSettings) -> bool:
    """Whether these settings train on the CPU."""
    return s.device == "cpu" or (s.device == "auto" and not machine.has_gpu())


def make_command(stage: Stage, s: Any, folder: Path, resume: Path | None = None) -> Command:
    """What to run for a training whose files lie in ``folder``; ``resume``: a checkpoint of ms-swift to go on from.

    Raises BadModel: no such model. BadInput: a model folder with Python code, which ms-swift would run.
    """
    model = resolve_model(s.model)
    check_no_code(model)
    flags: dict[str, Any] = {
        "model": model, "model_type": "pipo", "template": "pipo", "external_plugins": folder / PLUGIN,
        "dataset": Path(s.data).expanduser().absolute(), "output_dir": folder / OUTPUT, "tuner_type": TUNERS[s.tuner],
    }  # fmt: skip
    flags |= {theirs: getattr(s, ours) for ours, theirs in SHARED.items()}
    flags["per_device_train_batch_size"] = s.micro_rows or POOL  # a plan puts no more rows together
    flags["gradient_accumulation_steps"] = s.accumulate // s.processes if stage == "sft" else 1
    if s.max_length is not None:
        flags["max_length"] = s.max_length
    flags |= {
        "optimizer": "pipo", "lr_scheduler_type": "cosine", "torch_dtype": "float32", "fp16": False, "bf16": False,
        "lazy_tokenize": True, "split_dataset_ratio": 0, "dataloader_num_workers": 0, "check_model": False,
        "add_version": False, "save_total_limit": 2, "report_to": "none", "ddp_find_unused_parameters": False,
        "logging_first_step": False,
    }  # fmt: skip
    if on_cpu(s):
        flags["use_cpu"] = True
        if s.processes > 1:
            flags["ddp_backend"] = "gloo"
    if s.deepspeed is not None:
        flags["deepspeed"] = Path(__file__).with_name(f"{s.deepspeed}.json")
    if resume is not None:
        flags["resume_from_checkpoint"] = resume
    words = [w for k, v in flags.items() for w in (f"--{k}", str(v).lower() if isinstance(v, bool) else str(v))]
    return Command(words, s.processes)


def command(s: TrainSettings) -> list[str]:
    """The words of a command that trains by these settings, for a person to run: environment first, then ``swift sft``.

    What it reads is written to a folder of its own under PIPO_HOME, where its output will be as well. Raises as
    ``make_command`` does.
    """
    stage: Stage = "opd" if isinstance(s, OPDSettings) else "sft"
    text = json.dumps(msgspec.to_builtins(s), sort_keys=True)
    folder = paths().home / "swift" / f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    made = make_command(stage, s, folder)
    write_files(stage, s, folder)
    return [*(f"{k}={v}" for k, v in made.variables.items()), "swift", "sft", *made.arguments]


def check_no_code(model: Path) -> None:
    """Raise BadInput where a model folder brings Python code: ms-swift loads every folder with trust in it."""
    for name in ("config.json", "tokenizer_config.json"):
        path = model / name
        if path.exists() and "auto_map" in path.read_text():
            raise BadInput(f"{path} names Python code of its own (auto_map), which ms-swift would run; take it out")


def write_files(stage: Stage, s: Any, folder: Path) -> None:
    """Write what the command reads: settings and plugin."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(msgspec.to_builtins(s), indent=1)
    (folder / SETTINGS).write_text(text + "\n")
    (folder / PLUGIN).write_text(PLUGIN_TEXT.format(stage=stage, settings=SETTINGS))


def read_settings(stage: Stage, path: Path) -> Any:
    """Settings as ``write_files`` left them. Raises BadInput that names the file and the key."""
    try:
        return msgspec.convert(json.loads(path.read_text()), STAGES[stage])
    except (OSError, ValueError, msgspec.ValidationError) as e:
        raise BadInput(
            f"{path} does not hold settings of a training ({e}); `pipo train {stage} --help` names them"
        ) from e


def settings_of(base: Any, args: Any, processes: int) -> Any:
    """``base`` with what ms-swift's own flags say instead; ``args``: its parsed arguments."""
    said = {ours: getattr(args, theirs) for ours, theirs in SHARED.items()}
    said["warmup"] = _warmup(args)
    said |= {"processes": processes, "backend": "swift", "data": args.dataset[0]}
    if not isinstance(base.model, str) or resolve_model(base.model) != Path(args.model):
        said["model"] = str(args.model)
    if base.micro_rows is not None or args.per_device_train_batch_size != POOL:
        said["micro_rows"] = args.per_device_train_batch_size
    if hasattr(base, "accumulate"):
        said["accumulate"] = args.gradient_accumulation_steps * processes
    if base.max_length is not None:
        said["max_length"] = args.max_length
    said["tuner"] = {v: k for k, v in TUNERS.items()}.get(args.tuner_type)
    if said["tuner"] is None:
        raise BadInput(
            f"--tuner_type {args.tuner_type} is not made for PIPO; use --tuner_type {' or '.join(TUNERS.values())}"
        )
    return msgspec.structs.replace(base, **said)


def _warmup(args: Any) -> float:
    """The share of steps with a rising rate. ms-swift turns the ratio into ``warmup_steps`` below 1."""
    if args.warmup_ratio:
        return float(args.warmup_ratio)
    if args.warmup_steps and args.warmup_steps >= 1:
        raise BadInput(
            f"--warmup_steps {args.warmup_steps} is a number of steps; pipo reads a share, --warmup_ratio 0.05"
        )
    return float(args.warmup_steps or 0.0)
