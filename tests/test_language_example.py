"""The example with a pretrained encoder: its comparison finds what is there, and its page has its numbers."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "language-models.md").read_text()


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("language", ROOT / "examples" / "language.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def encoder(example):
    return example.load()


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"[+-]?\d+\.\d+", text.replace("−", "-"))]


def test_the_encoder_is_there_and_pretrained(encoder):
    """Installed with requirements-dev.txt: its absence is a failure, not a test left out."""
    model, tokenizer = encoder
    assert model.config.num_hidden_layers == 6
    first, second, other = (
        model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(1)[0]
        for text in ("A dog runs in the park.", "The puppy is running outdoors.", "Interest rates rose again.")
    )
    near, far = (torch.cosine_similarity(first, some, dim=0) for some in (second, other))
    assert near > far + 0.3


def test_a_text_measures_the_same_in_any_batch(example, encoder):
    texts = ["The boy sleeps.", "The price of bread has doubled within a year."]
    both = example.measure(*encoder, texts)
    for row, text in enumerate(texts):
        for name, alone in example.measure(*encoder, [text]).items():
            torch.testing.assert_close(both[name][row], alone[0], atol=1e-4, rtol=1e-4)


def test_scrambling_keeps_the_words(example):
    sentences = example.lines("sentences.txt")
    assert len(set(sentences)) == len(sentences) == 64
    for sentence in sentences:
        one, other = (example.scrambled(sentence, seed) for seed in (0, 1))
        assert sorted(one[:-1].split()) == sorted(sentence[:-1].split())
        assert one == example.scrambled(sentence, 0)
        assert sentence not in (one, other)
    parts = [line.split("|") for line in example.lines("ambiguous.txt")]
    assert len(parts) == 40
    assert all(len(part) == 3 and part[2].count("____") == 1 for part in parts)


def test_effects_of_known_differences(example):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200, generator=generator, dtype=torch.double)
    shifted = example.effect(noise + 1)
    assert shifted.low < 1 < shifted.high
    assert shifted.p < 0.001
    assert shifted.high - shifted.low == pytest.approx(4 / 200**0.5, rel=0.2)
    assert example.effect(noise - noise.mean()).p > 0.9
    # Under no effect p is uniform: the share below 0.3 of 100 tries is 30, give or take 3 × √21.
    tries = torch.randn(100, 30, generator=generator, dtype=torch.double)
    example.SHUFFLES = 500
    assert 0.16 < sum(example.effect(some).p < 0.3 for some in tries) / 100 < 0.44


def test_the_page_has_the_numbers_of_the_weights(example):
    """To one of the last digit: sums of other machines may round the other way."""
    for line in example.weights_section():
        if not line.startswith("| ensemble") and not line.startswith("| MiniLM"):
            continue
        name = line.split("|")[1].strip()
        printed = next(other for other in PAGE.splitlines() if other.startswith(f"| {name} |"))
        assert numbers(printed) == pytest.approx(numbers(line), abs=0.0011 if "." in line else 0)


def test_the_page_has_the_numbers_of_the_sentences(example, encoder):
    """Those of the arm that needs few forwards."""
    plain, other = (
        example.measure(*encoder, [part[2].replace("____", part[side]).strip() for part in parts])["alignment"].mean(1)
        for parts in [[[piece.strip() for piece in line.split("|")] for line in example.lines("ambiguous.txt")]]
        for side in (1, 0)
    )
    found = (other - plain).double()
    printed = next(line for line in PAGE.splitlines() if line.startswith("| ambiguous − plain word | 40 | alignment"))
    assert numbers(printed)[0] == pytest.approx(found.mean().item(), abs=1.1e-4)
