"""Tokens, against those of the published packages and of transformers."""

from typing import Any

import open_clip.tokenizer
import pytest
from transformers import CLIPTokenizer

import scorers
from symskew.metrics.words import openai_tokens, transformers_tokens, word_pieces

END = 49407


@pytest.fixture(scope="module")
def theirs():
    """The tokenizer of transformers, from the byte pairs that open_clip comes with."""
    pairs = open_clip.tokenizer.SimpleTokenizer()
    vocab = dict(pairs.encoder)
    for name, special in (("<start_of_text>", "<|startoftext|>"), ("<end_of_text>", "<|endoftext|>")):
        vocab[special] = vocab.pop(name)
    merges: Any = list(pairs.bpe_ranks)
    return CLIPTokenizer(vocab=vocab, merges=merges)


def test_openai_s_are_upstream_s():
    assert openai_tokens(scorers.PROMPTS).tolist() == scorers.upstream("clip-tokens").tolist()


def test_those_of_transformers_are(theirs):
    found = theirs(list(scorers.PROMPTS), truncation=True, max_length=77)["input_ids"]
    ours = [row[: row.index(END) + 1] for row in transformers_tokens(scorers.PROMPTS).tolist()]
    assert ours == found
    assert len(found[-1]) == 77


def test_they_differ_where_a_text_would_be_repaired():
    text = ["a cat &amp; a dog"]
    assert openai_tokens(text).tolist() == openai_tokens(["a cat & a dog"]).tolist()
    assert transformers_tokens(text).tolist() != transformers_tokens(["a cat & a dog"]).tolist()


def test_word_pieces_are_upstream_s(tmp_path):
    ids, mask = word_pieces(scorers.write_vocabulary(tmp_path))(scorers.PROMPTS)
    assert ids.tolist() == scorers.upstream("bert-tokens").tolist()
    assert (mask == (ids != 0)).all()
