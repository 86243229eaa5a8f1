"""PipoForCausalLM: a Hugging Face backbone given pairs by ``inputs_embeds``, with an MTP head and a confidence head.

The same class without compressor and confidence head is a regular model with its native MTP head.
Shape legend: B batch, T tokens, L = T/2 pairs, H hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaModel, Qwen2Model, Qwen3_5TextModel, Qwen3Model

from pipo.errors import BadInput, BadModel
from pipo.model.draft_vocab import check_draft_ids
from pipo.model.modules import Compressor, ConfidenceHead, MTPHead

BACKBONES: dict[str, Any] = {
    "qwen3_5_text": Qwen3_5TextModel,
    "qwen3": Qwen3Model,
    "qwen2": Qwen2Model,
    "llama": LlamaModel,
}
IGNORE = -100


@dataclass
class PipoOutput:
    """What a forward pass over pairs returns; losses are None without labels."""

    logits: torch.Tensor
    mtp_logits: torch.Tensor
    confidence_logits: torch.Tensor | None = None
    loss: torch.Tensor | None = None
    backbone_loss: torch.Tensor | None = None
    mtp_loss: torch.Tensor | None = None
    confidence_loss: torch.Tensor | None = None
    hidden: torch.Tensor | None = None
    mtp_hidden: torch.Tensor | None = None


class PipoForCausalLM(nn.Module):
    """Backbone + MTP head (+ compressor + confidence head where ``config.compressor_type`` is set).

    ``config`` is the backbone's text config with these keys of ours: ``compressor_type`` (``mlp``, ``linear`` or
    None for a regular model), ``mtp_loss_weight`` and ``confidence_loss_weight`` (default 1), ``fresh_mtp`` (true where
    the MTP head of a stored model was never trained).
    ``draft_ids``: draft vocabulary, int64 [N] ascending, or None. Decoding drafts from these tokens alone; the forward
    passes below project onto all of them.
    """

    base_model_prefix = "backbone"  # peft asks for it, as of any model that holds one of transformers
    draft_ids: torch.Tensor | None

    def __init__(self, config: Any) -> None:
        super().__init__()
        if config.model_type not in BACKBONES:
            raise BadModel(f"backbone {config.model_type!r} is not supported; supported: {', '.join(BACKBONES)}")
        kind = getattr(config, "compressor_type", None)
        if kind not in (None, "mlp", "linear"):
            raise BadModel(f"compressor_type {kind!r} in config.json must be 'mlp', 'linear' or null (a regular model)")
        if getattr(config, "head_dim", None) is None:  # Qwen2's configs have none
            config.head_dim = config.hidden_size // config.num_attention_heads
        self.config = config
        self.backbone = BACKBONES[config.model_type](config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.backbone.embed_tokens.weight
        self.mtp = MTPHead(config)
        self.mtp.start()
        self.register_buffer("draft_ids", None, persistent=False)
        self.compressor = Compressor(config.hidden_size, kind) if kind else None
        self.confidence_head = ConfidenceHead(config) if kind else None
        if self.compressor is not None and self.confidence_head is not None:
            self.compressor.start("sum")
            self.confidence_head.start()

    @property
    def is_pipo(self) -> bool:
        """Whether the model takes pairs (has a compressor and a confidence head)."""
        return self.compressor is not None

    @property
    def device(self) -> torch.device:
        return self.lm_head.weight.device

    def set_draft_vocab(self, ids: torch.Tensor | None) -> None:
        """Draft from these ids [N] int64 alone; None drafts from all. An engine reads them when it is made or reloaded.

        Raises BadModel where they are not unique, not in the vocabulary, hold PAD or lack EOS.
        """
        ordered = None if ids is None else check_draft_ids(ids, self.config, "draft vocabulary")
        self.draft_ids = None if ordered is None else ordered.to(self.device)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings, [...] -> [..., H]."""
        out: torch.Tensor = self.backbone.embed_tokens(ids)
        return out

    def compress(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Pair latents z [B, L, H] of token ids [B, T], T even."""
        if self.compressor is None:
            raise BadInput("this is a regular model without compressor; train a PIPO model from it first")
        if ids_BT.shape[1] % 2:
            raise BadInput(f"{ids_BT.shape[1]} tokens cannot be paired; lengths are even, an odd prompt gets one PAD")
        return self.compressor(self.embed(ids_BT))  # type: ignore[no-any-return]

    def run_backbone(self, embed_BLH: torch.Tensor, mask_BL: torch.Tensor | None = None) -> torch.Tensor:
        """Backbone hiddens after the final norm, [B, L, H]; ``mask_BL``: 1 at real places, padding on the right."""
        out: torch.Tensor = self.backbone(
            inputs_embeds=embed_BLH, attention_mask=mask_BL, use_cache=False
        ).last_hidden_state
        return out

    def hiddens(self, ids_BT: torch.Tensor, mask_BL: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Backbone hiddens h [B, L, H] and draft hiddens d [B, L-1, H], teacher-forced with the gold x_2i+2."""
        h_BLH = self.run_backbone(self.compress(ids_BT), mask_BL)
        draft_mask = None if mask_BL is None else mask_BL[:, 1:]
        return h_BLH, self.mtp(self.embed(ids_BT[:, 2::2]), h_BLH[:, :-1], draft_mask)

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor | None = None, pair_mask: torch.Tensor | None = None
    ) -> PipoOutput:
        """Next-pair prediction over token ids [B, T], T even.

        Args:
            labels: [B, T], -100 where a place is not supervised (prompt, PAD).
            pair_mask: [B, L], 1 at real pairs, right padding only.

        Returns:
            logits [B, L, V] (place i predicts x_2i+2), mtp_logits and confidence_logits [B, L-1, .] (x_2i+3), and
            with labels the mean losses and their weighted sum (arXiv 2605.27255, section 3.3).
        """
        h_BLH, d_BMH = self.hiddens(input_ids, pair_mask)
        assert self.confidence_head is not None
        conf_BM = self.confidence_head(h_BLH[:, :-1].detach(), d_BMH.detach())
        out = PipoOutput(self.lm_head(h_BLH), self.lm_head(d_BMH), conf_BM, hidden=h_BLH, mtp_hidden=d_BMH)
        if labels is not None:
            draft_labels = labels[:, 3::2]
            ok = draft_labels != IGNORE
            log_p = F.log_softmax(out.mtp_logits.float(), -1)
            target = log_p.detach().gather(-1, draft_labels.clamp(min=0)[..., None]).squeeze(-1).exp()
            bce = F.binary_cross_entropy_with_logits(conf_BM.float(), target, reduction="none")
            out.backbone_loss = mean_nll(out.logits[:, :-1], labels[:, 2::2])
            out.mtp_loss = mean_nll(out.mtp_logits, draft_labels)
            out.confidence_loss = (bce * ok).sum() / ok.sum().clamp(min=1)
            w_mtp = getattr(self.config, "mtp_loss_weight", 1.0)
            w_conf = getattr(self.config, "confidence_loss_weight", 1.0)
            out.loss = out.backbone_loss + w_mtp * out.mtp_loss + w_conf * out.confidence_loss
        return out

    def forward_regular(
        self, input_ids: torch.Tensor, labels: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> PipoOutput:
        """Next-token prediction over ids [B, T] with the native MTP head.

        Returns logits [B, T, V] (place i predicts x_i+1) and mtp_logits [B, T-1, V] (hidden i with x_i+1 predicts
        x_i+2), and with labels [B, T] the mean losses.
        """
        h_BTH = self.run_backbone(self.embed(input_ids), mask)
        draft_mask = None if mask is None else mask[:, 1:]
        d_BSH = self.mtp(self.embed(input_ids[:, 1:]), h_BTH[:, :-1], draft_mask)
        out = PipoOutput(self.lm_head(h_BTH), self.lm_head(d_BSH), hidden=h_BTH, mtp_hidden=d_BSH)
        if labels is not None:
            out.backbone_loss = mean_nll(out.logits[:, :-1], labels[:, 1:])
            out.mtp_loss = mean_nll(out.mtp_logits[:, :-1], labels[:, 2:])
            out.loss = out.backbone_loss + getattr(self.config, "mtp_loss_weight", 1.0) * out.mtp_loss
        return out


def mean_nll(logits_BLV: torch.Tensor, labels_BL: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the places whose label is not -100; 0 where there are none."""
    nll = F.cross_entropy(logits_BLV.float().flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORE, reduction="sum")
    return nll / (labels_BL != IGNORE).sum().clamp(min=1)
