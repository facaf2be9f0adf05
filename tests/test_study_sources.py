"""Where prompts come from: captions of COCO are chosen by hashes alone, and seeds are read once for all."""

import hashlib
import json

import pytest

from captions import captions
from symskew.cli.inputs import parse_seeds
from symskew.study import Study
from symskew.study.coco import choose_captions
from symskew.study.sources import read_prompts, read_seeds


def test_one_caption_of_each_image_whatever_the_order_of_the_file(tmp_path):
    texts, sha = choose_captions(captions(tmp_path / "a.json"), 50)
    assert len({text.split()[1] for text in texts}) == 50
    assert {text.split()[3] for text in texts} == {"0", "1", "2"}
    assert sha == hashlib.sha256((tmp_path / "a.json").read_bytes()).hexdigest()
    found = json.loads((tmp_path / "a.json").read_text())
    found["annotations"].sort(key=lambda row: row["id"])
    (tmp_path / "b.json").write_text(json.dumps(found))
    assert choose_captions(tmp_path / "b.json", 50)[0] == texts


def test_a_part_of_the_choice_is_the_beginning_or_end_of_it_and_seeds_give_others(tmp_path):
    path = captions(tmp_path / "a.json")
    whole = choose_captions(path, 50)[0]
    assert choose_captions(path, 20)[0] == whole[:20]
    assert choose_captions(path, 20, skip=20)[0] == whole[20:40]
    assert choose_captions(path, 50, seed=1)[0] != whole


def test_the_choice_is_the_same_for_good(tmp_path):
    assert choose_captions(captions(tmp_path / "a.json"), 3)[0] == [
        "image 21 caption 2",
        "image 44 caption 0",
        "image 25 caption 2",
    ]


def test_captions_that_are_empty_or_were_there_are_passed_over(tmp_path):
    rows = [{"image_id": i, "id": i, "caption": "the same" if i % 2 else " "} for i in range(10)]
    (tmp_path / "a.json").write_text(json.dumps({"annotations": rows}))
    assert choose_captions(tmp_path / "a.json", 1)[0] == ["the same"]
    with pytest.raises(ValueError, match="has 1 images with different captions, and 2 were asked for"):
        choose_captions(tmp_path / "a.json", 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is no JSON with annotations"),
        ("[" * 100_000, "it is no JSON with annotations"),
        ("[]", "it is no JSON with annotations"),
        ('{"annotations": {}}', "its annotations are no list"),
        (
            '{"annotations": [{"image_id": 1, "id": 2, "bbox": []}]}',
            r"but \['bbox', 'id', 'image_id'\]; files of insta",
        ),
        ('{"annotations": [{"image_id": [], "id": 2, "caption": "x"}]}', "an annotation has no image_id"),
        ('{"annotations": ["x"]}', "but 'x'"),
    ],
)
def test_what_is_no_file_of_captions_is_said(text, message, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.json is no file of COCO's captions: .*{message}"):
        choose_captions(tmp_path / "a.json", 1)


def test_a_study_keeps_what_it_chose_and_the_hash_of_where_from(tmp_path):
    path = captions(tmp_path / "captions_val2014.json")
    written = {
        "model": "ensemble-sdxl",
        "prompts": {"ten": {"coco": {"count": 10}}, "coco": {"coco": {"count": 30, "skip": 10, "seed": 0}}},
        "settings": {"vanilla": {}},
    }
    study = Study.of(written, captions=path)
    assert study.prompts["ten"].texts + study.prompts["coco"].texts == tuple(choose_captions(path, 40)[0])
    (tmp_path / "study.yaml").write_text(study.text())
    path.unlink()
    kept = Study.read(tmp_path / "study.yaml")
    assert kept == study
    source = kept.prompts["coco"].source
    assert source is not None
    sha256 = choose_captions(captions(path), 1)[1]
    assert source["coco"] == {"file": path.name, "sha256": sha256, "count": 30, "skip": 10, "seed": 0}
    assert kept.text() == study.text()


def test_a_file_beside_the_study_needs_no_pointing_to_and_is_held_to_its_hash(tmp_path):
    sha = choose_captions(captions(tmp_path / "captions.json"), 1)[1]
    coco = {"coco": {"count": 2, "file": "captions.json", "sha256": sha}}
    assert len(read_prompts("mine", coco, tmp_path).texts) == 2
    captions(tmp_path / "captions.json", images=51)
    with pytest.raises(ValueError, match=rf"not the file that the study is about: its SHA-256 is \w+, not {sha}"):
        read_prompts("mine", coco, tmp_path)
    with pytest.raises(ValueError, match="lies outside of the study's folder"):
        read_prompts("mine", {"coco": {"count": 2, "file": "../captions.json"}}, tmp_path)


def test_without_the_file_a_study_says_where_it_is_from_and_can_be_planned_only(tmp_path):
    missing = "prompts: mine: COCO's captions .*captions_val2014.json, of annotations_trainval2014.zip from cocodataset"
    for captions_file in (None, tmp_path / "none.json"):
        with pytest.raises(ValueError, match=missing):
            read_prompts("mine", {"coco": {"count": 2}}, tmp_path, captions_file)
    written = {"model": "m", "prompts": {"mine": {"coco": {"count": 3}}}, "settings": {"vanilla": {}}}
    study = Study.of(written, tmp_path, stand_in=True)
    assert len(study.prompts["mine"].texts) == 3
    with pytest.raises(ValueError, match=missing):
        study.text()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"coco": {"count": 0}}, "count must be a whole number of at least 1, got 0"),
        ({"coco": {"count": 1, "skip": -1}}, "skip must be a whole number of at least 0, got -1"),
        ({"coco": {"count": True}}, "count must be a whole number of at least 1, got True"),
        ({"coco": {"number": 3}}, "unexpected keyword argument 'number'"),
        ({"coco": 3}, "expected {count: N}, got 3"),
        ({"file": "x", "coco": {}}, "expected a list of prompts"),
    ],
)
def test_mistakes_in_what_is_chosen_are_named(written, message, tmp_path):
    with pytest.raises(ValueError, match=f"prompts: mine: .*{message}"):
        read_prompts("mine", written, tmp_path, captions(tmp_path / "a.json"))


def test_seeds_are_read_alike_wherever_they_are_written():
    assert parse_seeds("0-3,10, 2") == list(read_seeds("seeds", "0-3,10, 2")) == [0, 1, 2, 3, 10]
    assert read_seeds("seeds", [3, 1, 3]) == (3, 1)
    assert read_seeds("seeds", 5) == (5,)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("x", "expected numbers and ranges such as 0-7 or 1,5,9, got 'x'"),
        ([1, "2-3"], "expected numbers and ranges"),
        ([True], "expected numbers and ranges"),
        (-1, "expected numbers and ranges"),
        ("9" * 5000, "expected numbers and ranges such as 0-7 or 1,5,9, got '9{99}…"),
        ("7-0", "a range runs from the smaller to the larger, got '7-0'"),
        ("0-1000000", "there can be at most 1000000 seeds"),
        (",".join(f"{i}000000-{i}999999" for i in range(1, 100)), "there can be at most 1000000 seeds"),
    ],
)
def test_seeds_that_are_none(written, message):
    with pytest.raises(ValueError, match=f"seeds: {message}"):
        read_seeds("seeds", written)
