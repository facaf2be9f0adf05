"""`symskew generate --from IMAGE`: read the settings inside an image, and make it again with them."""

from __future__ import annotations

from pathlib import Path

from symskew.cli.job import Job
from symskew.cli.judging import make_jury
from symskew.cli.say import refusing
from symskew.generation import check, complete, describe_request, request_of, settings_id, versions
from symskew.images import Folder, file_name, read_record
from symskew.models import ModelFiles, find_model, load_model, quiet_bars


def make_again(source: Path, model_name: str | None, folder: Path, device: str) -> Job:
    """The job of repeating one image; warns of everything that is not as it was."""
    with refusing():
        record = read_record(source)
        recorded = record["revision"]
        commit = None if recorded.startswith("sha256:") else recorded
        files = _find(record["model"], commit) if model_name is None else find_model(model_name)
        request = request_of(record)
        quiet_bars()
        model = load_model(files, dtype=record.get("dtype", "auto"), device=device)
        request = complete(model, request)
        check(model, [request])
        settings = describe_request(model, request)
        new = {**record, "id": settings_id(settings)}
        if (folder / file_name(new)).resolve() == source.resolve():
            raise ValueError(f"--from would write over {source} itself; give another --out")
        jury = make_jury(files, request.size)
        target = Folder(folder)
    warnings = [
        f"{name} was {then} when {source.name} was made and is {now}: the image may differ"
        for name, then, now in [
            ("the model", recorded, files.revision),
            ("the scheduler", record.get("scheduler"), settings["scheduler"]),
            ("the device", record.get("run", {}).get("device"), model.device),
            *((name, record.get("versions", {}).get(name), now) for name, now in versions().items()),
        ]
        if then != now
    ]
    run = {"batch": 1, "place": 0, **record.get("run", {})}
    return Job(
        model, {new["id"]: request}, target, jury, 1, again={**record, "run": run}, source=source, warnings=warnings
    )


def _find(name: str, commit: str | None) -> ModelFiles:
    """The model that an image names, which is not downloaded: whoever made the image chose it."""
    try:
        return find_model(name, revision=commit, download=False)
    except ValueError as error:
        raise ValueError(f"{error}; to get the model that the image names, ask for it: --model {name}") from error
