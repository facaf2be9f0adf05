"""Prompts as tokens: CLIP's byte pairs, as OpenAI and as Hugging Face clean a text before, and BERT's word pieces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from symskew.table import need

__all__ = ["Tokenise", "openai_tokens", "transformers_tokens", "word_pieces"]

Tokenise = Callable[[Sequence[str]], Int[Tensor, "prompts 77"]]


def openai_tokens(prompts: Sequence[str]) -> Int[Tensor, "prompts 77"]:
    """As OpenAI's CLIP and open_clip: repaired (ftfy), HTML entities resolved, lower case, cut to 77 with the end kept.

    >>> openai_tokens(["a cat"])[0, :5].tolist()
    [49406, 320, 2368, 49407, 0]
    """
    return _byte_pairs(repair=True)(list(prompts), context_length=77)


def transformers_tokens(prompts: Sequence[str]) -> Int[Tensor, "prompts 77"]:
    """As the CLIP tokenizer of transformers: lower case and single spaces, nothing repaired or resolved.

    Padded with zeros: what comes after the end of a text has no part in its embedding.
    """
    return _byte_pairs(repair=False)(list(prompts), context_length=77)


@cache
def _byte_pairs(*, repair: bool) -> Any:
    found = need("open_clip.tokenizer", "metrics").SimpleTokenizer()
    if not repair:
        found.clean_fn = lambda text: re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
    return found


def word_pieces(vocabulary: Path) -> Callable[[Sequence[str]], tuple[Tensor, Tensor]]:
    """As ImageReward: BERT's uncased pieces, cut or padded to 35, and which of them are no padding."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    tokenizer.enable_truncation(35)
    tokenizer.enable_padding(length=35)

    def tokenise(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        found = tokenizer.encode_batch(list(prompts))
        return torch.tensor([each.ids for each in found]), torch.tensor([each.attention_mask for each in found])

    return tokenise
