"""The three parts that PIPO adds to a backbone. Equations: arXiv 2605.27255, section 3.

Shape legend: B batch, T tokens, L = T/2 pairs, H hidden size.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn
from transformers.masking_utils import create_causal_mask
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding
from transformers.models.qwen3_5.modeling_qwen3_5 import (
    Qwen3_5DecoderLayer,
    Qwen3_5RMSNorm,
    Qwen3_5TextRotaryEmbedding,
)

CompressorType = Literal["mlp", "linear"]
Start = Literal["sum", "identity", "random"]

# model_type -> (decoder layer, RMSNorm, rotary embedding) of that backbone family
FAMILIES: dict[str, tuple[Any, Any, Any]] = {
    "qwen3_5_text": (Qwen3_5DecoderLayer, Qwen3_5RMSNorm, Qwen3_5TextRotaryEmbedding),
    "qwen3": (Qwen3DecoderLayer, Qwen3RMSNorm, Qwen3RotaryEmbedding),
    "qwen2": (Qwen2DecoderLayer, Qwen2RMSNorm, Qwen2RotaryEmbedding),
    "llama": (LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding),
}


class Compressor(nn.Module):
    """Pair-in: z_i = f([e(x_2i); e(x_2i+1)]), [B, 2L, H] -> [B, L, H].

    ``linear``: W[..] + b. ``mlp``: W2 SiLU(W1[..] + b1) + b2 with W1 2H -> 2H and W2 2H -> H.
    """

    def __init__(self, hidden_size: int, kind: CompressorType = "mlp") -> None:
        super().__init__()
        if kind == "linear":
            self.linear = nn.Linear(2 * hidden_size, hidden_size)
        else:
            self.mlp = nn.Sequential(
                nn.Linear(2 * hidden_size, 2 * hidden_size), nn.SiLU(), nn.Linear(2 * hidden_size, hidden_size)
            )
        self.kind = kind

    @torch.no_grad()
    def start(self, how: Start, std: float = 0.02) -> None:
        """Set the starting weights.

        ``sum``: exactly f([a; b]) = a + b; in the mlp through SiLU(s) - SiLU(-s) = s. ``identity``: the reference's
        start, identity then SiLU then sum, which is SiLU(a) + SiLU(b). ``random``: normal with ``std``.
        """
        linears = [m for m in self.modules() if isinstance(m, nn.Linear)]
        eye = torch.eye(linears[0].in_features // 2)
        for m in linears:
            m.bias.zero_()
        if how == "random":
            for m in linears:
                m.weight.normal_(std=std)
        elif self.kind == "linear":
            self.linear.weight.copy_(torch.cat([eye, eye], 1))
        elif how == "sum":
            both = torch.cat([eye, eye], 1)
            self.mlp[0].weight.copy_(torch.cat([both, -both]))
            self.mlp[2].weight.copy_(torch.cat([eye, -eye], 1))
        else:
            self.mlp[0].weight.copy_(torch.eye(2 * len(eye)))
            self.mlp[2].weight.copy_(torch.cat([eye, eye], 1))

    def forward(self, embed_BTH: torch.Tensor) -> torch.Tensor:
        """Fold each pair of embeddings [B, 2L, H] into one latent [B, L, H]; the number of tokens must be even."""
        B, T, H = embed_BTH.shape
        pair_BLG = embed_BTH.reshape(B, T // 2, 2 * H)
        out: torch.Tensor = self.linear(pair_BLG) if self.kind == "linear" else self.mlp(pair_BLG)
        return out


class MTPHead(nn.Module):
    """Pair-out: d_i = norm(layer(W_fc [norm_e(e(next token)); norm_h(h_i)])), one full-attention decoder layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        layer, norm, rotary = FAMILIES[config.model_type]
        H, eps = config.hidden_size, config.rms_norm_eps
        self.config = deepcopy(config)
        self.config.num_hidden_layers = 1
        self.config.layer_types = ["full_attention"]
        self.pre_fc_norm_embedding = norm(H, eps=eps)
        self.pre_fc_norm_hidden = norm(H, eps=eps)
        self.fc = nn.Linear(2 * H, H, bias=False)
        self.layers = nn.ModuleList([layer(self.config, 0)])
        self.norm = norm(H, eps=eps)
        self.rotary_emb = rotary(config=self.config)

    @torch.no_grad()
    def start(self, trained: bool = False) -> None:
        """Fresh weights: the layer is random, W_fc averages its halves.

        ``trained``: the backbone is, and only lacks native ``mtp.*``. Then W_fc begins with the hidden alone: the
        embedding of the last token would through a tied head say that very token again (docs/BACKBONES.md).
        """
        for m in self.layers.modules():
            if isinstance(m, nn.Linear):
                m.weight.normal_(std=self.config.initializer_range)
                if m.bias is not None:
                    m.bias.zero_()
        eye = torch.eye(self.config.hidden_size)
        self.fc.weight.copy_(torch.cat([0 * eye, eye] if trained else [0.5 * eye, 0.5 * eye], 1))

    def fuse(self, embed_BLH: torch.Tensor, hidden_BLH: torch.Tensor) -> torch.Tensor:
        """The layer's input: W_fc over the normed embedding (first half) and hidden, [B, L, H]."""
        both = torch.cat([self.pre_fc_norm_embedding(embed_BLH), self.pre_fc_norm_hidden(hidden_BLH)], -1)
        out: torch.Tensor = self.fc(both)
        return out

    def forward(
        self, embed_BLH: torch.Tensor, hidden_BLH: torch.Tensor, mask_BL: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Draft hiddens d [B, L, H] from the embeddings of the next tokens and the backbone's hiddens."""
        x_BLH = self.fuse(embed_BLH, hidden_BLH)
        B, L, _ = x_BLH.shape
        pos_BL = torch.arange(L, device=x_BLH.device)[None].expand(B, -1)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x_BLH,
            attention_mask=mask_BL,
            past_key_values=None,
            position_ids=pos_BL,
        )
        # Qwen3.5 counts places of text, height and width; for text all three are the same
        places = pos_BL[None].expand(3, B, -1) if self.config.model_type == "qwen3_5_text" else pos_BL
        rope = self.rotary_emb(x_BLH, places)
        out = self.layers[0](x_BLH, position_embeddings=rope, attention_mask=mask, position_ids=pos_BL)
        return self.norm(out[0] if isinstance(out, tuple) else out)  # type: ignore[no-any-return]


class ConfidenceHead(nn.Module):
    """c_i = sigmoid(w2 SiLU(W1 RMSNorm([h_i; d_i]))), no biases; returns the value before the sigmoid."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        norm, H = FAMILIES[config.model_type][1], config.hidden_size
        self.norm = norm(2 * H, eps=config.rms_norm_eps)
        self.fc1 = nn.Linear(2 * H, H, bias=False)
        self.fc2 = nn.Linear(H, 1, bias=False)

    @torch.no_grad()
    def start(self, std: float = 0.02) -> None:
        """Fresh weights: normal with ``std``; confidence starts near one half."""
        self.fc1.weight.normal_(std=std)
        self.fc2.weight.normal_(std=std)

    def forward(self, hidden_BLH: torch.Tensor, draft_BLH: torch.Tensor) -> torch.Tensor:
        """Confidence logits [B, L] from backbone and draft hiddens [B, L, H]."""
        out: torch.Tensor = self.fc2(F.silu(self.fc1(self.norm(torch.cat([hidden_BLH, draft_BLH], -1)))))
        return out.squeeze(-1)
