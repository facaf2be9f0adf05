"""Images that carry the settings that made them: PNG text, file names, and the list of a folder's images."""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from symskew.files import replacing
from symskew.ramp import spell

RECORD_KEY, READABLE_KEY = "symskew", "parameters"
"""The PNG text keys: the exact record (JSON), and the same for people, as the usual viewers show it."""

MOST_BATCH = 4096
_KINDS = {"prompt": str, "seed": int, "model": str, "revision": str, "steps": int, "size": list, "id": str}
_MORE = {"run": dict, "versions": dict, "scheduler": dict, "dtype": str}

LIST_NAME = "metadata.jsonl"
"""The list of a folder's images, one JSON object a line; with it the folder loads as a Hugging Face image folder."""


def file_name(record: dict[str, Any]) -> str:
    """The name of a record's image: what was asked for, the seed, and the id's beginning.

    >>> file_name({"prompt": "A red three, and more!", "seed": 7, "id": "0123456789abcdef"})
    'a-red-three-and-more-s7-01234567.png'
    """
    slug = re.sub(r"[^a-z0-9]+", "-", record["prompt"].lower()).strip("-")[:48].rstrip("-")
    return f"{slug or 'image'}-s{record['seed']}-{record['id'][:8]}.png"


def describe_control(record: dict[str, Any]) -> str:
    """The control of a record in a few words.

    >>> describe_control({"circulation": {"alpha": 1.2, "beta": 5.0, "adaptive": "head"}, "layers": "up", "stop": 0.5})
    'α 1.2 β 5 · adaptive head · layers up · steps 0–0.5'
    >>> describe_control({"circulation": {"alpha": 1.2, "gate": {"measure": "instability", "threshold": 0.4}}})
    'α 1.2 β 1 · where instability is above 0.4'
    >>> describe_control({"circulation": {"alpha": {"start": 2.0, "stop": 1.0}, "branch": "conditional"}})
    'α 2..1 β 1 · branch conditional'
    >>> describe_control({})
    'vanilla'
    """
    settings = dict(record.get("circulation", {}))
    if not settings:
        return "vanilla"
    numbers = {"α": settings.pop("alpha", 1.0), "β": settings.pop("beta", 1.0)}
    parts = [" ".join(f"{sign} {spell(value)}" for sign, value in numbers.items())]
    gate = settings.pop("gate", None)
    parts += [f"{name} {_short(value)}" for name, value in settings.items()]
    if gate is not None:
        below = "below" if gate["measure"] == "alignment" else "above"
        threshold = gate["threshold"]
        parts.append(
            f"where {gate['measure']} is {below} "
            + ("each layer's" if isinstance(threshold, dict) else f"{threshold:g}")
        )
    if record.get("layers") is not None:
        layers = record["layers"]
        parts.append("layers " + (layers if isinstance(layers, str) else "+".join(map(str, layers))))
    start, stop = record.get("start", 0.0), record.get("stop", 1.0)
    if (start, stop) != (0.0, 1.0):
        parts.append(f"steps {start:g}–{stop:g}")
    return " · ".join(parts)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def describe(record: dict[str, Any]) -> str:
    """A record as text for people, in the form that image viewers and web interfaces read."""
    width, height = record["size"]
    facts = {
        "Steps": record["steps"],
        "Sampler": record["scheduler"]["name"],
        "CFG scale": record["guidance"] if record["guidance"] is None else _short(record["guidance"]),
        "Seed": record["seed"],
        "Size": f"{width}x{height}",
        "Model hash": record["revision"].removeprefix("sha256:")[:10],
        "Model": Path(record["model"]).name,
        "Circulation": describe_control(record),
        "Version": f"symskew {record['versions']['symskew']}",
    }
    lines = [record["prompt"]]
    if record.get("negative") is not None:
        lines.append(f"Negative prompt: {record['negative']}")
    # Readers split at commas, and take what is in JSON's quotes for one value.
    shown = {name: json.dumps(v, ensure_ascii=False) if "," in str(v) else v for name, v in facts.items()}
    lines.append(", ".join(f"{name}: {value}" for name, value in shown.items() if value is not None))
    return "\n".join(lines)


def save_image(path: Path, image: Image.Image, record: dict[str, Any]) -> None:
    """Write a PNG with its record inside, in one piece: the file is there whole or not at all."""
    text = PngImagePlugin.PngInfo()
    text.add_text(READABLE_KEY, describe(record))
    text.add_text(RECORD_KEY, json.dumps(record))
    with replacing(path) as partial:
        image.save(partial, format="PNG", pnginfo=text)


def read_record(path: Path) -> dict[str, Any]:
    """The record inside an image that symskew made; anybody may have written it.

    Raises:
        ValueError: there is no such file, it is no PNG of a size to be opened, or no record is inside.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Only the format that is written here: others start programs, or are read by code that few look at.
            with Image.open(path, formats=("PNG",)) as image:
                image.load()
                text = getattr(image, "text", {}).get(RECORD_KEY)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    if text is None:
        raise ValueError(f"{path} carries no settings: symskew did not make it, or a program took its PNG text out")
    try:
        record = json.loads(text)
        missing = _KINDS.keys() - record.keys()
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"the settings inside {path} are damaged: {error}") from error
    if missing:
        raise ValueError(f"the settings inside {path} are incomplete: {', '.join(sorted(missing))} missing")
    for name, kind in (_KINDS | _MORE).items():
        if not isinstance(record.get(name, kind()), kind):
            raise ValueError(f"the settings inside {path} are damaged: {name} is {record[name]!r:.100}")
    batch, place = record.get("run", {}).get("batch", 1), record.get("run", {}).get("place", 0)
    if not (isinstance(batch, int) and isinstance(place, int) and 0 <= place < batch <= MOST_BATCH):
        raise ValueError(f"the settings inside {path} are damaged: it is image {place!r} of {batch!r:.20}")
    return record


class Folder:
    """A folder that images are saved to, with a list of them.

    Raises:
        ValueError: it cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._list = path / LIST_NAME
        try:
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
            self._rows = _read_list(self._list)
        except OSError as error:
            raise ValueError(f"cannot write to the folder {path}: {error.strerror or error}") from error

    def save(self, image: Image.Image, record: dict[str, Any], **more: Any) -> Path:
        """Save an image under `file_name(record)` and list it, with `more` beside its record; returns its path."""
        name = file_name(record)
        save_image(self.path / name, image, record)
        known = name in self._rows
        self._rows[name] = json.dumps({"file_name": name, "text": record["prompt"], **record, **more})
        if known:
            with replacing(self._list) as partial:
                partial.write_text("".join(f"{row}\n" for row in self._rows.values()))
        else:
            with self._list.open("a") as file:
                file.write(self._rows[name] + "\n")
        return self.path / name


def _read_list(path: Path) -> dict[str, str]:
    rows = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows[json.loads(line)["file_name"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no list of images: {error!r} in {line[:60]!r}") from error
    return rows
