"""The model: compressor, MTP head and confidence head over a Hugging Face backbone; loading and saving.

What may not enter: decoding, caches, training loops. Needs torch, transformers, safetensors and msgspec alone.
"""

from pipo.model.checkpoint import load_model, load_tokenizer, save_model
from pipo.model.modeling import PipoForCausalLM, PipoOutput
from pipo.model.students import from_backbone, open_student, prepare_backbone

__all__ = [
    "PipoForCausalLM",
    "PipoOutput",
    "from_backbone",
    "load_model",
    "load_tokenizer",
    "open_student",
    "prepare_backbone",
    "save_model",
]
