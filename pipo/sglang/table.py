"""Every place where PIPO enters SGLang: what, why, and what breaks without it. ``pipo engines`` prints it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

VERSION = "0.5.23"


class Hook(NamedTuple):
    """One hook.

    ``target``: dotted path in sglang. ``kind``: how SGLang's hook registry applies ours. ``ours``: module and function
    below ``pipo.sglang.hooks``. ``parameters``: names of the target's parameters that the hook was written for.
    """

    target: str
    kind: Literal["AROUND", "AFTER"]
    ours: str
    parameters: tuple[str, ...]
    why: str
    without: str

    def load(self) -> Callable[..., Any]:
        """Our function."""
        return pkgutil.resolve_name(f"pipo.sglang.hooks.{self.ours}")  # type: ignore[no-any-return]


SRT = "sglang.srt"
INFO = f"{SRT}.sampling.sampling_batch_info.SamplingBatchInfo"
TOKENIZER = f"{SRT}.managers.tokenizer_manager.TokenizerManager"


def _hook(target: str, kind: Any, ours: str, parameters: str, why: str, without: str) -> Hook:
    return Hook(target, kind, ours, tuple(parameters.split()), why, without)


HOOKS = (
    _hook(
        f"{SRT}.utils.hf_transformers.config.get_config",
        "AROUND",
        "loading:get_config",
        "model trust_remote_code revision model_override_args model_config_parser kwargs",
        "reads our model folders and the published layout as the backbone's own architecture",
        "the architecture PipoForCausalLM is unknown",
    ),
    _hook(
        f"{SRT}.model_loader.utils.get_model_architecture",
        "AROUND",
        "loading:get_model_architecture",
        "model_config",
        "takes our twin class for a PIPO checkpoint",
        "the heads are ignored and pairs read as token ids beyond the vocabulary",
    ),
    _hook(
        f"{SRT}.configs.model_config.ModelConfig._config_draft_model",
        "AFTER",
        "loading:config_draft_model",
        "self",
        "names the draft class of a dense Qwen3's MTP head (eagle, mtp)",
        "the whole model is loaded as its own draft",
    ),
    _hook(
        f"{SRT}.models.qwen3.Qwen3ForCausalLM.load_weights",
        "AROUND",
        "loading:without_head",
        "self weights",
        "keeps a dense Qwen3's MTP head from its backbone",
        "a checkpoint with an MTP head ends in a KeyError",
    ),
    _hook(
        f"{SRT}.managers.scheduler.Scheduler.init_model_config",
        "AFTER",
        "scheduler:scheduler_init",
        "self",
        "notes in the scheduler's process that its model takes pairs, or that it drafts for us",
        "the scheduler takes pairs for token ids, and drafts are verified with loss",
    ),
    _hook(
        f"{TOKENIZER}._validate_one_request",
        "AROUND",
        "requests:validate_one_request",
        "self obj input_ids",
        "counts lengths in pairs",
        "prompts longer than half the context are refused",
    ),
    _hook(
        f"{TOKENIZER}._create_tokenized_object",
        "AROUND",
        "requests:create_tokenized_object",
        "self obj input_text input_ids input_embeds mm_inputs token_type_ids",
        "packs the prompt, checks threshold and budget, refuses what pairs have no answer for",
        "prompts are not paired",
    ),
    _hook(
        f"{TOKENIZER}.update_request_meta_info",
        "AROUND",
        "requests:update_request_meta_info",
        "self meta_info state customized_info index finish_reason",
        "puts slots, tokens and PADs into meta_info",
        "counts are cut up as if they were a value a token",
    ),
    _hook(
        f"{SRT}.managers.schedule_batch.Req.update_finish_state",
        "AROUND",
        "scheduler:update_finish_state",
        "self new_accepted_len",
        "end of sequence, stop strings and token limits inside a pair",
        "a pair is beyond the vocabulary and ends every request",
    ),
    _hook(
        f"{SRT}.managers.scheduler_components.output_streamer._GenerationStreamAccumulator.accept",
        "AROUND",
        "scheduler:accept",
        "self req",
        "sends tokens, text, log-probabilities and counts without PADs",
        "users get packed ids",
    ),
    _hook(
        f"{SRT}.managers.schedule_batch.ScheduleBatch.cumulate_penalty_output_tokens",
        "AROUND",
        "sampling:cumulate_penalty_output_tokens",
        "self",
        "counts kept drafts for penalties, PAD never; all accepted drafts of eagle and mtp",
        "penalties index beyond the vocabulary",
    ),
    _hook(
        f"{INFO}.adjusted_from_schedule_batch",
        "AFTER",
        "sampling:from_schedule_batch",
        "self batch vocab_size",
        "carries thresholds of a batch, and counts a retracted request's tokens again",
        "the gate has no threshold",
    ),
    _hook(
        f"{INFO}.adjusted_merge_batch",
        "AFTER",
        "sampling:merge_batch",
        "self other",
        "thresholds of batches that merge",
        "rows get other rows' thresholds",
    ),
    _hook(
        f"{INFO}.adjusted_filter_batch",
        "AFTER",
        "sampling:filter_batch",
        "self keep_indices keep_indices_device",
        "thresholds of the rows that stay",
        "rows get other rows' thresholds",
    ),
    _hook(
        f"{INFO}.copy_for_forward",
        "AFTER",
        "sampling:copy_for_forward",
        "self",
        "thresholds under the overlap schedule; penalties of eagle and mtp",
        "the gate has no threshold under the overlap schedule, verification no penalties",
    ),
    _hook(
        f"{SRT}.model_executor.forward_batch_info.ForwardBatch.init_new",
        "AFTER",
        "sampling:init_forward_batch",
        "cls batch model_runner capture_hidden_mode return_hidden_states_before_norm extend_position_info"
        " spec_mrope_positions kv_loc_plan write_cols",
        "tells a chunk its prompt's next token",
        "the MTP row at a chunk's end is written with a token that is not the prompt's",
    ),
    _hook(
        f"{SRT}.model_executor.model_runner.ModelRunner.sample",
        "AROUND",
        "sampling:sample",
        "self logits_output forward_batch",
        "draft, gate and second sampling after the first token",
        "no drafts",
    ),
    _hook(
        f"{SRT}.speculative.eagle_utils.eagle_sample",
        "AROUND",
        "eagle:sample",
        "verify_input batch logits_output grammar_mask uno_target_max_top_k watermark_state watermark_full_mask",
        "verifies drafts without loss under all sampling settings (eagle), or keeps them (mtp)",
        "penalties, min-p and joint filters are verified with loss, on a CPU every temperature is 0; mtp is verified",
    ),
    _hook(
        f"{SRT}.speculative.eagle_worker_v2.EagleDraftWorker.draft_forward",
        "AROUND",
        "mtp:draft_forward",
        "self forward_batch",
        "draws the drafts of mtp with their requests' settings",
        "drafts of mtp know neither penalties nor filters",
    ),
)

RIG_HOOKS = (
    _hook(
        f"{SRT.removesuffix('.srt')}.kernels.ops.attention.fla.layernorm_gated.RMSNorm.forward",
        "AROUND",
        "rig:gated_norm",
        "self x z",
        "on a CPU, the gated norm of linear attention in plain torch",
        "Triton is called where there is no GPU",
    ),
    _hook(
        f"{SRT.removesuffix('.srt')}.kernels.ops.mamba.mamba_state_scatter_triton.scatter_mamba_states_after_mtp_verify",
        "AROUND",
        "rig:scatter_states",
        "mamba_caches state_indices_tensor last_correct_step_indices mamba_track_indices mamba_steps_to_track"
        " src_indices_raw",
        "on a CPU, takes over the states of linear attention after the accepted drafts in plain torch",
        "Triton is called where there is no GPU",
    ),
)
