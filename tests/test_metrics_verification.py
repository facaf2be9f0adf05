"""Verification: it agrees with itself, finds what is wrong, and holds to the authors' images alone."""

import json
from dataclasses import replace

import numpy as np
import pytest

import scorers
from symskew import metrics
from symskew.metrics import alignment, verification
from symskew.metrics.kinds import sha256
from symskew.metrics.verification import PUBLISHED, Record, compare, own_captions, pictures, published, record

NAMES = ["clip-l", "aesthetic", "imagereward"]


@pytest.fixture(scope="module")
def site(tiny_scorers):
    return metrics.Site.of(tiny_scorers)


@pytest.fixture(scope="module")
def found(site):
    return record(NAMES, site)


def test_the_pictures_are_the_same_everywhere(found):
    assert found.pictures == "2d987cf6aee3f35a40e54fe0c0ec84a93a5e5d2b1bad32253bae4f64f8b08be0"
    assert [each.image.size for each in pictures()].count((256, 256)) == 4
    assert len({each.caption for each in pictures()}) == 6


def test_a_record_is_written_and_read(found, tmp_path):
    found.save(tmp_path / "scores.json")
    again = Record.read(tmp_path / "scores.json")
    assert again == found
    assert found.weights.keys() == {"clip-l", "aesthetic", "imagereward", "bert"}
    assert {"torch", "device"} <= found.made_with.keys()
    assert all(row.agrees and row.largest == 0 for row in compare(found, again))


def test_a_wrong_network_is_found_and_rounding_is_not(found, site, tiny_scorers, tmp_path):
    noisy = {name: (np.array(values) + 1e-6).tolist() for name, values in found.scores.items()}
    assert all(row.agrees for row in compare(found, replace(found, scores=noisy)))
    state = scorers.filled(scorers.shapes("clip"))
    state["visual.ln_post.bias"] += 0.05
    scorers.write_hugging_face(tmp_path / "other", state, act="quick_gelu")
    other = record(NAMES, metrics.Site.of(tiny_scorers | {"clip-l": tmp_path / "other"}))
    rows = {row.metric: row for row in compare(other, found)}
    assert [rows[name].agrees for name in rows] == [False, False, True]
    assert rows["clip-l/cos/fp32@1"].why == "other weights may be why: those of clip-l differ"
    scorers.write_hugging_face(tmp_path / "gelu", scorers.filled(scorers.shapes("clip")), act="gelu")
    plain = record(["clip-l"], metrics.Site.of(tiny_scorers | {"clip-l": tmp_path / "gelu"}))
    [row] = compare(plain, found)
    assert not row.agrees  # the trap of open_clip's ViT-B-32: plain GELU, with the same weights
    assert row.why == ""


def test_half_precision_is_held_to_less(site):
    found = record(["clip-l/fp16"], site)
    scores = np.array(found.scores["clip-l/cos/fp16@1"])
    near = {"clip-l/cos/fp16@1": (scores + 0.05 * scores.std()).tolist()}
    assert compare(found, replace(found, scores=near))[0].agrees


def test_what_cannot_be_compared_is_said(found, tmp_path):
    with pytest.raises(ValueError, match="the record is of other pictures"):
        compare(found, replace(found, pictures="0"))
    with pytest.raises(ValueError, match="the record has none of these metrics; it has hps"):
        compare(found, replace(found, scores={"hps": [[0.0]]}))
    for text in ("{}", "[]", "no"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="is no record of metrics"):
            Record.read(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="ensemble/realism: only metrics of single images, from published weights"):
        record(["ensemble/realism"], metrics.Site())


def test_captions_are_counted_where_the_prompt_plays_a_part(found):
    assert own_captions(found).keys() == {"clip-l/cos/fp32@1", "imagereward/v1.0/fp32@1"}
    perfect = replace(found, scores={"a": np.eye(6).tolist(), "b": np.roll(np.eye(6), 1, 0).tolist()})
    assert own_captions(perfect) == {"a": 6, "b": 0}


def test_published_scores_are_of_the_authors_images_alone(site, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"1.webp is not there; published scores are of the README"):
        published(PUBLISHED[0], tmp_path, site)
    images, files = scorers.images()[:2], {}
    for place, image in enumerate(images):
        image.save(tmp_path / f"{place}.png")
        digest = sha256(tmp_path / f"{place}.png")
        files[f"{place}.png"] = (digest, float(scorers.upstream("imagereward")[0, place]))
    case = verification.Published("imagereward", "here", scorers.PROMPTS[0], files, 0.02)
    for _, score, known in published(case, tmp_path, site):
        assert score == pytest.approx(known, abs=1e-5)
    images[0].save(tmp_path / "1.png")
    sha256.cache_clear()
    with pytest.raises(ValueError, match=r"1.png is not the image that its authors scored"):
        published(case, tmp_path, site)


def test_published_metrics_exist():
    for case in PUBLISHED:
        assert metrics.find([case.metric])[0].quantities[0].id == case.metric
        assert json.dumps(case.files)
    assert set(alignment.VARIANTS) == {"clip-l", "clip-b32", "pickscore", "hps"}
