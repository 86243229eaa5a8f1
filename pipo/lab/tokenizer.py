"""The lab's tokenizer: one word, one token; an ordinary tokenizer.json that Hugging Face's classes load."""

from __future__ import annotations

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipo.lab.tasks import WORDS

PAD, BOS, EOS = 0, 1, 2
VOCAB_SIZE = 128  # a little above the number of words, a multiple of 64


def lab_tokenizer() -> PreTrainedTokenizerFast:
    """Words of ``pipo.lab.tasks.WORDS`` by their place; any other word becomes ``<unk>``."""
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
