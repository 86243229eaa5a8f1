"""LoRA adapters in a PIPO model through peft, and their files in the published layout.

The adapters sit on the projections of attention and MLP, of the backbone and of the MTP layer; what PIPO adds is
trained in full; embeddings, head and all else are frozen (arXiv 2605.27255, appendix). An adapter folder holds
``adapter_model.safetensors`` (LoRA pairs and the parts trained in full, under ``base_model.model.``) and
``adapter_config.json``, as peft writes them.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from pipo.errors import BadModel

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS = rf"(backbone\.layers|mtp\.layers)\..*\.({'|'.join(PROJECTIONS)})"
IN_FULL = ("compressor.", "confidence_head.", "mtp.fc.", "mtp.pre_fc_norm_embedding.", "mtp.pre_fc_norm_hidden.",
           "mtp.norm.")  # fmt: skip
PREFIX = "base_model.model."
ADAPTER = "default"


def add_lora(
    model: nn.Module, rank: int, alpha: float, dropout: float, seed: int, fresh_mtp: bool = False
) -> None:  # fmt: skip
    """Put adapters into the model, in place, and freeze all but them and the parts trained in full.

    ``fresh_mtp``: the MTP layer starts from random weights, so it is trained in full, not adapted.
    A starts with peft's uniform distribution, but from a source of its own for each module, so that every engine of
    training starts from the same weights; B starts at zero.
    """
    targets = TARGETS.replace(r"|mtp\.layers", "") if fresh_mtp else TARGETS
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    inject_adapter_in_model(config, model)
    in_full = (*IN_FULL, "mtp.layers.") if fresh_mtp else IN_FULL
    for name, p in model.named_parameters():
        p.requires_grad_("lora_" in name or name.startswith(in_full))
    for name, module in layers(model):
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        source = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        a = module.lora_A[ADAPTER].weight
        bound = 1 / math.sqrt(a.shape[1])
        drawn = torch.empty(a.shape).uniform_(-bound, bound, generator=source)
        with torch.no_grad():
            a.copy_(drawn)
            module.lora_B[ADAPTER].weight.zero_()


def layers(model: nn.Module) -> list[tuple[str, Any]]:
    """Name and module of every adapted projection; none where the model has no adapters."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]


def merged_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter under its plain name, adapters added in: what a model without adapters would hold.

    Plain parameters are the model's own tensors, not copies.
    """
    delta = {n: m.get_delta_weight(ADAPTER).detach() for n, m in layers(model)}
    out: dict[str, torch.Tensor] = {}
    for name, p in model.named_parameters():
        if "lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        module = plain.rpartition(".")[0]
        added = delta.get(module) if plain.endswith(".weight") else None
        out[plain] = p.detach() if added is None else (p.detach().to(added.dtype) + added).to(p.dtype)
    return out


def merge(model: nn.Module) -> nn.Module:
    """Add the adapters into their projections and take them out, in place."""
    for name, module in layers(model):
        module.merge(adapter_names=[ADAPTER])
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module.get_base_layer())
    for p in model.parameters():
        p.requires_grad_(True)
    return model


def _published(name: str) -> str:
    """The name of a tensor in an adapter file: the backbone is ``model``, peft's adapter name is left out."""
    name = name.replace(f".{ADAPTER}.", ".")
    return PREFIX + ("model." + name.removeprefix("backbone.") if name.startswith("backbone.") else name)


def save_adapter(model: nn.Module, folder: Path, base: str) -> None:
    """Write the adapters and the parts trained in full; ``base``: what they were trained from, for the reader."""
    folder.mkdir(parents=True, exist_ok=True)
    adapted = layers(model)
    tensors = {
        _published(n): p.detach().to("cpu").contiguous().clone() for n, p in model.named_parameters() if p.requires_grad
    }
    tmp = folder / "adapter_model.safetensors.tmp"
    save_file(tensors, tmp, metadata={"format": "pt"})
    tmp.replace(folder / "adapter_model.safetensors")
    first = adapted[0][1]
    in_full = sorted({n.removeprefix(PREFIX).rpartition(".")[0] for n in tensors if "lora_" not in n})
    config = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": base, "r": first.r[ADAPTER],
        "lora_alpha": first.lora_alpha[ADAPTER], "lora_dropout": getattr(first.lora_dropout[ADAPTER], "p", 0.0),
        "target_modules": sorted({n.rpartition(".")[2] for n, _ in adapted}), "bias": "none",
        "modules_to_save": in_full, "fan_in_fan_out": False, "use_rslora": False,
        "compressor_type": getattr(model.config, "compressor_type", None),
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """An adapter folder's settings and tensors, by the names of PipoForCausalLM. Raises BadModel with the file."""
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text())
        float(config["lora_alpha"]) / int(config["r"])
    except FileNotFoundError as e:
        raise BadModel(f"{folder} has no adapter_config.json; name the folder that training wrote adapters to") from e
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, ZeroDivisionError) as e:
        raise BadModel(f"{path} is no adapter's config ({e!r}); it needs r and lora_alpha") from e
    file = folder / "adapter_model.safetensors"
    try:
        raw = load_file(file)
    except (FileNotFoundError, SafetensorError, OSError) as e:
        raise BadModel(f"{file} cannot be read as safetensors ({e}); only that format is loaded") from e
    return config, {_our_name(n): t for n, t in raw.items()}


def _our_name(name: str) -> str:
    name = name.removeprefix(PREFIX).replace(".modules_to_save.", ".").replace(f".{ADAPTER}.", ".")
    for prefix in ("model.language_model.", "model."):
        if name.startswith(prefix):
            return "backbone." + name.removeprefix(prefix)
    return name


@torch.no_grad()
def apply_adapter(model: nn.Module, config: dict[str, Any], tensors: dict[str, torch.Tensor], where: Path) -> None:
    """Add an adapter's LoRA products into a plain model and replace the parts that were trained in full.

    Raises BadModel that names the first tensor that has no place, has another shape, or whose partner is missing.
    """
    want = dict(model.named_parameters())
    scale = float(config["lora_alpha"]) / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"])
    for name, tensor in tensors.items():
        if name.endswith(".lora_B.weight"):
            continue
        if name.endswith(".lora_A.weight"):
            target, partner = name.replace(".lora_A", ""), name.replace("lora_A", "lora_B")
            if partner not in tensors:
                raise BadModel(f"{where}: {name} has no {partner} beside it; copy the adapter again")
            tensor = scale * (tensors[partner].float() @ tensor.float())
        else:
            target = name
        if target not in want:
            raise BadModel(f"{where}: {name} belongs to no part of this model; the adapter was trained on another")
        p = want[target]
        if tensor.shape != p.shape:
            raise BadModel(f"{where}: {name} makes {list(tensor.shape)}, the model has {list(p.shape)} at {target}")
        p.copy_(p.float() + tensor.to(p.device) if target != name else tensor)
