"""Reading back all of a study's folder: what is damaged, twice there, left over or without an owner."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symskew.files import read_json
from symskew.study.definition import Study
from symskew.study.plan import sample_id
from symskew.study.scorers import digests_in
from symskew.study.scoring import check_weights
from symskew.study.store import TABLES, Store, check_bytes, digest, read_file

ASIDE = "damaged"
"""The folder that damaged files are put into."""


@dataclass
class Findings:
    """What `verify` found.

    Attributes:
        files, samples: how many were read.
        damaged: files that cannot be read or are not what they say, with the reason.
        twice: sample ids that two files hold.
        strays: rows of samples that are not there, by file.
        leftovers: parts of files of interrupted runs; harmless.
        digest: one hash of all samples and their images, whatever their order.
    """

    files: int = 0
    samples: int = 0
    damaged: dict[Path, str] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    strays: dict[Path, str] = field(default_factory=dict)
    leftovers: list[Path] = field(default_factory=list)
    digest: str = ""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.damaged or self.twice or self.strays)


def verify(folder: str | Path, *, repair: bool = False) -> Findings:
    """Read every file of a study's folder and check it.

    Checked are the checksums of all pages, every image against its hash, every sample's id against its prompt, seed and
    setting, that no sample is there twice, and that nothing is about a sample that is not there.

    Args:
        folder: of the study.
        repair: put damaged files aside, with what was derived from them, and delete leftovers; running the study again
            makes anew what is missing then.

    Raises:
        ValueError: this is no study's folder.
    """
    store, found = Store(folder), Findings()
    if not store.folder.is_dir() or not any((store.folder / each).exists() for each in ("study.yaml", "samples")):
        raise ValueError(f"{folder} is no folder of a study; symskew study run STUDY.yaml makes one")
    descriptions = _settings(store, found)
    prompts = _prompts(store, found)
    images: dict[str, str] = {}
    for path in store.files("samples"):
        found.files += 1
        try:
            own = _samples(path, descriptions, prompts)
        except ValueError as error:
            found.damaged[path] = str(error)
            continue
        found.twice += [key for key in own if key in images]
        images |= own
    found.samples, found.digest = len(images), digest(images)
    weights = digests_in(store)
    for table in TABLES[1:]:
        for path in store.files(table):
            found.files += 1
            try:
                check_bytes(path)
                rows = read_file(path)
                if table == "features":
                    check_weights(rows, path, weights)
            except ValueError as error:
                found.damaged[path] = str(error)
                continue
            if "sample_id" not in rows.column_names:
                continue
            ids = rows["sample_id"].to_pylist()
            if strange := set(ids) - images.keys():
                # Measures are committed a moment before their samples: what an interrupted run left, the next uses.
                if table in ("measures", "maps") and len(strange) == len(set(ids)):
                    continue
                found.strays[path] = f"{len(strange)} samples that are not there, such as {min(strange)}"
    found.leftovers = store.leftovers()
    if repair:
        _repair(store, found)
    return found


def _samples(path: Path, descriptions: dict[str, Any] | None, prompts: dict[str, str] | None) -> dict[str, str]:
    check_bytes(path)
    rows = read_file(path).to_pylist()
    ids = [row["sample_id"] for row in rows]
    if repeated := [key for key, count in Counter(ids).items() if count > 1]:
        raise ValueError(f"{path} is damaged: it has the sample {repeated[0]} twice")
    for row in rows:
        if hashlib.sha256(row["image"]["bytes"]).hexdigest() != row["image_sha256"]:
            raise ValueError(f"{path} is damaged: the image of {row['sample_id']} does not have its hash")
        description = (descriptions or {}).get(row["setting_id"])
        text = (prompts or {}).get(row["prompt_id"])
        if description is None or text is None:
            what = f"setting {row['setting_id']}" if description is None else f"prompt {row['prompt_id']}"
            raise ValueError(f"{path}: the {what} of {row['sample_id']} is not known here")
        if sample_id(description, text, row["seed"]) != row["sample_id"] or row["setting_id"] != path.parent.name:
            raise ValueError(f"{path} is damaged: {row['sample_id']} is not the id of its setting, prompt and seed")
    return {row["sample_id"]: row["image_sha256"] for row in rows}


def _settings(store: Store, found: Findings) -> dict[str, Any]:
    known = {}
    for path in sorted((store.folder / "settings").glob("[!.]*.json")):
        found.files += 1
        try:
            text = read_json(path)
            known[text["id"]] = text["description"]
        except (ValueError, KeyError, OSError) as error:
            found.damaged[path] = f"{path} is damaged: {error}"
    return known


def _prompts(store: Store, found: Findings) -> dict[str, str]:
    known = {}
    for path in store.files("prompts"):
        found.files += 1
        try:
            known |= {row["prompt_id"]: row["prompt"] for row in read_file(path).to_pylist()}
        except ValueError as error:
            found.damaged[path] = str(error)
    try:
        Study.read(store.folder / "study.yaml")
    except ValueError as error:
        found.damaged[store.folder / "study.yaml"] = str(error)
    return known


def _repair(store: Store, found: Findings) -> None:
    for path in {*found.damaged, *found.strays}:
        aside = store.folder / ASIDE / path.relative_to(store.folder)
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.replace(aside)
    for path in found.leftovers:
        path.unlink(missing_ok=True)
