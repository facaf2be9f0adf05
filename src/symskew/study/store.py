"""The folder of a study: immutable Parquet files, each there whole or not at all, the first one written stays.

study.yaml                                     what was asked for last
settings/<setting>.json                        the exact description behind each setting's id
prompts/<hash>.parquet                         the texts
samples/<setting>/<unit>.parquet               images, and what computed them
measures/<setting>/<unit>.parquet              what was diagnosed, row by row as a record has it
maps/<setting>/<unit>.parquet                  where it was in conflict, by stage
features/<extractor>/<setting>/<unit>.parquet  what extractors found in the images
scores/<set of metrics>/<setting>/<unit>.parquet
pair_scores/<set of metrics>/<setting>/<samples>.parquet
weights/<name>.json                            the hash of the published weights that scores were made with
references/<extractor>.safetensors             real images that sets are compared with
failures/<sample>.json                         what could not be made, after three tries
failures/<set of metrics>/<sample>.json        what could not be scored, likewise
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from symskew.files import claiming, read_json, replacing
from symskew.table import need

TABLES = ("samples", "measures", "maps", "features", "scores", "pair_scores")
CHECKSUM = "symskew.sha256"


class Store:
    """What is there already of a study, and the only way to add to it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, table: str, *parts: str) -> Path:
        """Of one file."""
        *folders, name = parts
        return self._inside(table, *folders, f"{name}.parquet")

    def _inside(self, *parts: str) -> Path:
        # Ids are read from files that anybody may have written.
        for part in parts:
            if not part or part in (".", "..") or re.search(r"[/\\\0]", part):
                raise ValueError(f"{self.folder}: {part!r:.100} is no name of a file in it")
        return self.folder.joinpath(*parts)

    def has(self, table: str, *parts: str) -> bool:
        """Whether a file has been committed."""
        return self.path(table, *parts).exists()

    def commit(self, rows: Any, table: str, *parts: str) -> bool:
        """Write an Arrow table as one file; False where it was there already, which is left as it is.

        On disk before its name is: neither a crash nor a full disk leaves a part of it behind.

        Raises:
            OSError: it cannot be written.
        """
        parquet, path = need("pyarrow.parquet", "study"), self.path(table, *parts)
        if path.exists():
            return False
        buffer = io.BytesIO()
        plain = ["image.bytes"] if table == "samples" else []  # PNG is compressed already
        compression = {name: "none" if name in plain else "zstd" for name in _leaves(rows.schema)}
        options = {"compression": compression, "write_page_checksum": True}
        with parquet.ParquetWriter(buffer, rows.schema, **options) as writer:
            writer.write_table(rows, row_group_size=64 if plain else None)
            # Page checksums leave the pages' headers out; this is of everything but the footer that it stands in.
            writer.add_key_value_metadata({CHECKSUM: hashlib.sha256(buffer.getvalue()).hexdigest()})
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            with claiming(path) as partial:
                write_durably(partial, buffer.getvalue())
            _flush_folder(path.parent)
            return True
        return False

    def read(self, table: str, *parts: str, columns: Sequence[str] | None = None) -> Any:
        """One file as an Arrow table.

        Raises:
            ValueError: it is damaged.
        """
        return read_file(self.path(table, *parts), columns)

    def files(self, table: str) -> Iterator[Path]:
        """The committed files of a table, in order."""
        yield from sorted(path for path in (self.folder / table).rglob("*.parquet") if not path.name.startswith("."))

    def done(self, table: str, *parts: str) -> dict[str, set[str]]:
        """The units committed for each setting."""
        found: dict[str, set[str]] = {}
        root = self._inside(table, *parts)
        with suppress(FileNotFoundError):
            for setting in filter(os.DirEntry.is_dir, os.scandir(root)):
                names = os.listdir(setting.path)
                found[setting.name] = {n[:-8] for n in names if n.endswith(".parquet") and not n.startswith(".")}
        return found

    def keep_text(self, text: str, *parts: str) -> None:
        """Put a small file in its place, whole."""
        path = self._inside(*parts)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            write_durably(partial, text.encode())

    def claim_text(self, text: str, *parts: str) -> None:
        """Put a small file in its place, whole, unless there is one."""
        path = self._inside(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with suppress(FileExistsError), claiming(path) as partial:
                write_durably(partial, text.encode())

    def descriptions(self) -> dict[str, dict[str, Any]]:
        """What is known of settings, by `setting_key`: `{"id": …, "description": …, …}`."""
        found = {}
        for path in sorted((self.folder / "settings").glob("[!.]*.json")):
            try:
                known = read_json(path)
                found[known["key"]] = known
            except (ValueError, KeyError) as error:
                raise ValueError(f"{path} is damaged: {error}; delete it, a run writes it again") from error
        return found

    def prompts(self) -> list[dict[str, Any]]:
        """All prompts that were ever asked for: `prompt_id`, `prompt`, `prompts` (their set) and `place` in it."""
        found = [row for path in self.files("prompts") for row in read_file(path).to_pylist()]
        return list({row["prompt_id"]: row for row in found}.values())

    def failures(self) -> dict[str, dict[str, Any]]:
        """What could not be made, by sample."""
        return _failures_in(self.folder / "failures")

    def unscored(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What was made and could not be scored: by set of metrics, by sample."""
        folders = sorted(path for path in (self.folder / "failures").glob("[!.]*") if path.is_dir())
        return {folder.name: _failures_in(folder) for folder in folders}

    def given_up(self) -> dict[str, str]:
        """Why samples could not be made, or could not be scored, in a line for each."""
        found = {key: _last_line(each) for key, each in self.failures().items()}
        for some in self.unscored().values():
            for key, each in some.items():
                first, *more = each.get("metrics", ["?"])
                reason = f"not scored by {first}{f' and {len(more)} more' * bool(more)}: {_last_line(each)}"
                found[key] = f"{found[key]}; {reason}" if key in found else reason
        return found

    def forget_failures(self) -> None:
        """Let what was given up be tried again."""
        for path in (self.folder / "failures").rglob("[!.]*.json"):
            path.unlink(missing_ok=True)

    def leftovers(self) -> list[Path]:
        """Parts of files that an interrupted run left behind; harmless."""
        return sorted(path for path in self.folder.rglob(".*.tmp") if path.is_file())


def read_file(path: Path, columns: Sequence[str] | None = None) -> Any:
    """A Parquet file as an Arrow table, its checksums verified.

    Raises:
        ValueError: it is damaged.
    """
    parquet = need("pyarrow.parquet", "study")
    import pyarrow

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"{path} is damaged ({' '.join(str(error).split())[:200]}); `symskew study verify --repair` puts damaged "
            "files aside, and running the study again makes them anew"
        ) from error


def _failures_in(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("[!.]*.json")):
        with suppress(ValueError):
            found[path.stem] = read_json(path)
    return found


def _last_line(failure: Mapping[str, Any]) -> str:
    return str(failure["error"]).strip().splitlines()[-1]


def check_bytes(path: Path) -> None:
    """That a Parquet file of a study has the bytes that were written.

    Raises:
        ValueError: it has not.
    """
    parquet = need("pyarrow.parquet", "study")
    read_file(path, [])
    with parquet.ParquetFile(path) as file:
        known = file.metadata.metadata or {}
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    if hashlib.sha256(data[:-footer]).hexdigest().encode() != known.get(CHECKSUM.encode()):
        raise ValueError(f"{path} is damaged: its bytes do not have their checksum")


def write_durably(path: Path, data: bytes) -> None:
    """Write a file, and return when it is on disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def digest(pairs: Mapping[str, str]) -> str:
    """One hash for a set of samples, whatever their order: of their ids and their images' hashes."""
    lines = "".join(f"{key} {value}\n" for key, value in sorted(pairs.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _leaves(schema: Any) -> list[str]:
    names = []
    for each in schema:
        inner = (
            [each.type.field(i).name for i in range(each.type.num_fields)]
            if str(each.type).startswith("struct")
            else []
        )
        names += [f"{each.name}.{name}" for name in inner] or [each.name]
    return names


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
