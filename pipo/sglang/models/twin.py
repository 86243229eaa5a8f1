"""What makes a stock SGLang backbone take pairs: compressor, MTP layer and confidence head, over its own caches.

The backbone keeps its layers, caches, attention backends and tensor parallelism. The MTP layer is one more
full-attention layer of the same kind whose keys and values lie in the same slots, one layer id after the backbone's.
One step is two phases: ``forward`` runs the backbone over packed pairs; after the first token was sampled, ``draft``
runs the MTP layer over the same slots (in a prefill over all of them, so that drafts attend to the prompt).

Shape legend: T slots of this pass (pairs), B requests, H hidden size, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sglang.srt.layers.linear import ColumnParallelLinear, RowParallelLinear
from sglang.srt.layers.logits_processor import LogitsMetadata
from sglang.srt.model_executor.forward_context import ForwardContext, forward_context, get_forward_context
from sglang.srt.model_loader.weight_utils import default_weight_loader
from sglang.srt.runtime_context import get_model
from torch import Tensor, nn

from pipo.model.draft_vocab import read_draft_vocab
from pipo.sglang.pairs import unpack

STACKED = (
    ("qkv_proj", "q_proj", "q"),
    ("qkv_proj", "k_proj", "k"),
    ("qkv_proj", "v_proj", "v"),
    ("gate_up_proj", "gate_proj", 0),
    ("gate_up_proj", "up_proj", 1),
)
BACKBONE = re.compile(r"^(model\.language_model\.|language_model\.model\.)")
OURS = ("mtp.", "compressor.", "confidence_head.")


class Passed(NamedTuple):
    """What the backbone's last eager pass left: hiddens [T, H] and where it ran."""

    hidden: Tensor
    positions: Tensor
    batch: Any
    context: ForwardContext


class Fold(nn.Module):
    """Pair-in: [T, 2H] -> [T, H]; column- then row-parallel, so that each rank holds its share."""

    def __init__(self, hidden: int, kind: str, quant_config: Any) -> None:
        super().__init__()
        self.kind = kind
        if kind == "linear":
            self.linear = nn.Linear(2 * hidden, hidden)
        else:
            up = ColumnParallelLinear(2 * hidden, 2 * hidden, quant_config=quant_config)
            down = RowParallelLinear(2 * hidden, hidden, quant_config=quant_config)
            self.mlp = nn.ModuleDict({"0": up, "2": down})

    def forward(self, x_T2H: Tensor) -> Tensor:
        if self.kind == "linear":
            return self.linear(x_T2H)  # type: ignore[no-any-return]
        up, _ = self.mlp["0"](x_T2H)
        return self.mlp["2"](torch.nn.functional.silu(up))[0]  # type: ignore[no-any-return]


class Confidence(nn.Module):
    """sigmoid(w2 SiLU(W1 RMSNorm([h; d]))), [T] float32."""

    def __init__(self, hidden: int, norm: nn.Module, quant_config: Any) -> None:
        super().__init__()
        self.norm = norm
        self.fc1 = ColumnParallelLinear(2 * hidden, hidden, bias=False, quant_config=quant_config)
        self.fc2 = RowParallelLinear(hidden, 1, bias=False, quant_config=quant_config)

    def forward(self, h_TH: Tensor, d_TH: Tensor) -> Tensor:
        x, _ = self.fc1(self.norm(torch.cat([h_TH, d_TH], -1)))
        return self.fc2(torch.nn.functional.silu(x))[0].squeeze(-1).float().sigmoid()  # type: ignore[no-any-return]


class Unfold(nn.Module):
    """Pair-out: ``body`` is a one-layer backbone of the same family, its norm included."""

    def __init__(self, hidden: int, norms: tuple[nn.Module, nn.Module], body: nn.Module) -> None:
        super().__init__()
        self.pre_fc_norm_embedding, self.pre_fc_norm_hidden = norms
        self.fc = nn.Linear(2 * hidden, hidden, bias=False)
        self.body = body

    def forward(self, ids_T: Tensor, embed_TH: Tensor, h_TH: Tensor, positions: Tensor, batch: Any) -> Tensor:
        x_TH = self.fc(torch.cat([self.pre_fc_norm_embedding(embed_TH), self.pre_fc_norm_hidden(h_TH)], -1))
        return self.body(ids_T, positions, batch, x_TH)  # type: ignore[no-any-return]


class PairModel:
    """Mixed into a stock ``...ForCausalLM``; ``add_heads`` after its ``__init__``."""

    def add_heads(self, config: Any, quant_config: Any, norm: Any, body: nn.Module) -> None:
        """``norm(size)`` makes a norm of the family; ``body`` is a one-layer backbone of it without embedding."""
        hidden = config.hidden_size
        self.pad = int(config.pad_token_id)
        self.compressor = Fold(hidden, config.compressor_type, quant_config)
        self.mtp = Unfold(hidden, (norm(hidden), norm(hidden)), body)
        self.confidence_head = Confidence(hidden, norm(2 * hidden), quant_config)
        self.register_buffer("draft_mask", _outside_draft_vocab(config), persistent=False)  # type: ignore[attr-defined]
        # Only to measure what pairs alone cost (bench.sglang_overhead): no second phase, PAD is always second.
        self.first_only = getattr(config, "pipo_method", None) == "first-only"

    @property
    def end_layer(self) -> int:
        """One more than the backbone's: caches get a layer for the MTP head."""
        return int(self.config.num_hidden_layers) + 1  # type: ignore[attr-defined]

    def mtp_positions(self, positions: Tensor, forward_batch: Any) -> Tensor:
        """The positions that attention layers of this family take."""
        return positions

    @torch.no_grad()
    def forward(
        self, input_ids: Tensor, positions: Tensor, forward_batch: Any, input_embeds: Any = None, **_: Any
    ) -> Any:
        """Logits of the first tokens that follow each pair; ``input_ids`` [T] packed."""
        first, second = unpack(input_ids)
        positions = self.mtp_positions(positions, forward_batch)
        e_T2H = self.model.embed_tokens(torch.stack([first, second], 1))  # type: ignore[attr-defined]
        z_TH = self.compressor(e_T2H.flatten(1))
        h_TH = self.model(first, positions, forward_batch, z_TH)  # type: ignore[attr-defined]
        out = self.logits_processor(first, h_TH, self.lm_head, forward_batch)  # type: ignore[attr-defined]
        if not (h_TH.is_cuda and torch.cuda.is_current_stream_capturing()):
            out.passed = Passed(h_TH, positions, forward_batch, get_forward_context())
        return out

    @torch.no_grad()
    def draft(self, first_B: Tensor, tail_B: Tensor, out: Any, batch: Any, backend: Any) -> tuple[Tensor, Tensor]:
        """Draft logits [B, V] and confidences [B] after the first tokens [B] of the next pairs.

        ``tail_B``: the token after each request's last place of this pass, which is ``first_B`` but in a chunk that
        is not a prompt's last: there the prompt's own next token, so that the MTP layer's rows are what one pass
        over the whole prompt writes. ``out``: what ``forward`` returned for ``batch``, eager or from a CUDA graph.
        """
        h_TH, positions, batch, context = self._passed(out, batch, backend)
        ids_T, last_B = tail_B, None
        if batch.forward_mode.is_extend():
            first_T, _ = unpack(batch.input_ids)
            last_B = torch.cumsum(batch.extend_seq_lens, 0) - 1
            ids_T = torch.roll(first_T, -1).index_copy(0, last_B.long(), tail_B)
        with forward_context(context, forward_batch=batch):
            embed_TH = self.model.embed_tokens(ids_T)  # type: ignore[attr-defined]
            d_TH = self.mtp(ids_T, embed_TH, h_TH, positions, batch)
        if last_B is not None:
            h_TH, d_TH = h_TH[last_B], d_TH[last_B]
        metadata = LogitsMetadata.from_forward_batch(batch)
        head = self.lm_head  # type: ignore[attr-defined]
        logits = self.logits_processor._get_logits(d_TH, head, metadata, use_logits_buffer=False)  # type: ignore[attr-defined]
        return logits, self.confidence_head(h_TH, d_TH)

    def _passed(self, out: Any, batch: Any, backend: Any) -> Passed:
        """The pass that made ``out``; a CUDA graph leaves its hiddens there, and metadata padded to its own size."""
        passed: Passed | None = getattr(out, "passed", None)
        if passed is not None:
            return passed
        if out.hidden_states is None:
            raise RuntimeError("a CUDA graph ran without hidden states; start with --enable-return-hidden-states")
        backend.init_forward_metadata(batch)
        positions = self.mtp_positions(batch.positions, batch)
        hidden = out.hidden_states[: len(batch.input_ids)]
        return Passed(hidden, positions, batch, ForwardContext(attn_backend=backend))

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Ours and the published layout. Raises ValueError where a tensor is missing: nothing stays random."""
        for p in self.parameters():  # type: ignore[attr-defined]
            p.data.fill_(float("nan"))
        heads: list[tuple[str, Tensor]] = []

        def backbone() -> Iterable[tuple[str, Tensor]]:
            for name, tensor in weights:
                if name.startswith(OURS):
                    heads.append((name, tensor))
                elif not name.startswith(("visual.", "model.visual.")):
                    yield BACKBONE.sub("model.", name), tensor

        super().load_weights(backbone())  # type: ignore[misc]
        params = dict(self.named_parameters())  # type: ignore[attr-defined]
        unknown = [name for name, tensor in heads if not fill(params, name, tensor)]
        missing = [name for name, p in params.items() if p.isnan().any()]
        if missing or unknown:
            raise ValueError(f"checkpoint and config.json disagree: missing {missing[:4]}, unexpected {unknown[:4]}")


def _outside_draft_vocab(config: Any) -> Tensor | None:
    """Ids that the model folder's draft vocabulary leaves out, [V] bool; None where it has none."""
    ids = read_draft_vocab(Path(get_model().model_path), config)
    return None if ids is None else torch.ones(config.vocab_size, dtype=torch.bool).index_fill(0, ids, False)


def fill(params: dict[str, nn.Parameter], name: str, tensor: Tensor) -> bool:
    """Load a tensor of our heads; whether there is a parameter for it (a fused one takes its shard)."""
    name = re.sub(r"^mtp\.(layers|norm)\.", r"mtp.body.\1.", name)
    for stacked, single, shard in STACKED:
        fused = name.replace(single, stacked)
        for target in (fused, fused.replace(".self_attn.", ".")):
            if single in name and target in params:
                params[target].weight_loader(params[target], tensor, shard)
                return True
    for target in (name, name.replace(".self_attn.", ".")):
        if target in params:
            loader = getattr(params[target], "weight_loader", default_weight_loader)
            loader(params[target], tensor)
            return True
    return False
