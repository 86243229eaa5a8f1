"""Sizes of the lab's family: model shapes and token budgets. The one place to change them."""

from __future__ import annotations

from typing import Any

import msgspec
from transformers import Qwen3_5TextConfig

from pipo.lab.tokenizer import BOS, EOS, PAD, VOCAB_SIZE

LAYERS = "lllflllf"  # l: GatedDeltaNet, f: full attention; Qwen3.5's 3:1


def lab_config(hidden: int) -> Any:
    """A Qwen3.5-shaped text config of 8 layers."""
    names = {"l": "linear_attention", "f": "full_attention"}
    config = Qwen3_5TextConfig(
        vocab_size=VOCAB_SIZE, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=len(LAYERS),
        num_attention_heads=hidden // 32, num_key_value_heads=1, head_dim=32, linear_num_key_heads=2,
        linear_num_value_heads=2, linear_key_head_dim=32, linear_value_head_dim=32,
        layer_types=[names[c] for c in LAYERS], tie_word_embeddings=True, max_position_embeddings=32768,
        pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.25},
    )  # fmt: skip
    config.mtp_loss_weight = 0.3
    return config


def student_config() -> Any:
    """1.07 M parameters with the MTP head."""
    return lab_config(96)


def teacher_config() -> Any:
    """1.8 M parameters with the MTP head."""
    return lab_config(128)


class Recipe(msgspec.Struct, frozen=True):
    """Budgets of one build, in real tokens. Base and teacher are trained in two phases (pipo.lab.rows).

    ``rollout_items`` training problems get ``rollout_samples`` samples each of the teacher.

    The control is trained on as many tokens as SFT and OPD together, on the same roll-outs as SFT.
    """

    tasks: tuple[str, ...]
    base_tokens: tuple[int, int]
    teacher_tokens: tuple[int, int]
    rollout_items: int
    rollout_samples: int
    sft_tokens: int
    opd_tokens: int
    valid_items: int
    seed: int = 0

    @property
    def control_tokens(self) -> int:
        return self.sft_tokens + self.opd_tokens


FULL = Recipe(
    tasks=("lab-chain", "lab-choice", "lab-recall"), base_tokens=(3_000_000, 1_000_000),
    teacher_tokens=(3_500_000, 1_200_000),
    rollout_items=7_000, rollout_samples=2, sft_tokens=2_800_000, opd_tokens=200_000, valid_items=16,
)  # fmt: skip
QUICK = Recipe(
    tasks=("lab-chain",), base_tokens=(600_000, 100_000), teacher_tokens=(700_000, 100_000),
    rollout_items=2_000, rollout_samples=2,
    sft_tokens=600_000, opd_tokens=60_000, valid_items=12,
)  # fmt: skip
SMOKE = Recipe(  # for tests: every stage runs for real, nothing is learned well
    tasks=("lab-chain",), base_tokens=(40_000, 20_000), teacher_tokens=(80_000, 40_000),
    rollout_items=384, rollout_samples=2,
    sft_tokens=30_000, opd_tokens=6_000, valid_items=3,
)  # fmt: skip
RECIPES = {"full": FULL, "quick": QUICK, "smoke": SMOKE}
