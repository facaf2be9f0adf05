"""`symskew doctor`: what is installed, which devices and attention backends are there, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import re
import sys
from typing import Annotated, Any

import typer
from rich.markup import escape

from symskew.cli.say import FAILED, out

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "pillow", "rich", "typer")
KERNELS = {"flash_attn": "flash-attn", "sageattention": "sageattention", "xformers": "xformers"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Say what is installed, which devices and attention backends are there, and how to get what is missing."""
    found = {
        "versions": {"python": platform.python_version(), "symskew": _version("symskew")}
        | {name: _version(name) for name in PACKAGES},
        "devices": _devices(),
        "attention": _attention(),
        "extras": _extras(),
        "models": _models(),
    }
    whole = all(model["problem"] is None for model in found["models"]) and None not in found["versions"].values()
    if as_json:
        sys.stdout.write(json.dumps({**found, "healthy": whole}, indent=1) + "\n")
    else:
        _print(found, healthy=whole)
    if not whole:
        raise typer.Exit(FAILED)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    import torch

    devices: list[dict[str, Any]] = [
        {"device": "cpu", "what": f"{platform.machine()}, {torch.get_num_threads()} threads, "
         f"{torch.backends.cpu.get_cpu_capability()}"}
    ]  # fmt: skip
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(
            {"device": f"cuda:{index}", "what": f"{properties.name}, {properties.total_memory / 2**30:.0f} GB"}
        )
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "what": "Apple GPU"})
    if torch.xpu.is_available():
        devices += [
            {"device": f"xpu:{i}", "what": torch.xpu.get_device_name(i)} for i in range(torch.xpu.device_count())
        ]
    return devices


def _attention() -> list[dict[str, str]]:
    import torch

    torch_kernels = ["math"]
    if torch.cuda.is_available():
        cuda = torch.backends.cuda
        enabled = {
            "flash": cuda.flash_sdp_enabled(),
            "memory-efficient": cuda.mem_efficient_sdp_enabled(),
            "cuDNN": cuda.cudnn_sdp_enabled(),
        }
        torch_kernels = [name for name, on in enabled.items() if on] + torch_kernels
    elif torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        torch_kernels.insert(0, "flash")
    rows = [{"backend": "torch", "state": f"there ({', '.join(torch_kernels)}); controlled in all models"}]
    for module, name in KERNELS.items():
        there = importlib.util.find_spec(module) is not None
        state = "there; controlled where diffusers dispatches to it (FLUX, Wan, Qwen, …), an error elsewhere"
        rows.append({"backend": name, "state": state if there else "not installed; nothing here needs it"})
    return rows


def _extras() -> list[dict[str, Any]]:
    needs: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("symskew") or []:
        match = re.match(r"([\w.-]+).*extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if match:
            needs.setdefault(match[2], []).append(match[1])
    rows = []
    for extra, packages in needs.items():
        missing = [name for name in packages if _version(name) is None]
        install = f'pip install "symskew[{extra}]"' if missing else None
        rows.append({"extra": extra, "packages": packages, "missing": missing, "install": install})
    return rows


def _models() -> list[dict[str, Any]]:
    from symskew.ensemble import MODELS, Judge
    from symskew.models import find_model

    rows: list[dict[str, Any]] = []
    for name in MODELS:
        try:
            files = find_model(name)
            rows.append(
                {"model": name, "revision": files.revision, "verified": "sha256" in files.info, "problem": None}
            )
        except ValueError as error:
            rows.append({"model": name, "revision": None, "verified": False, "problem": str(error)})
    try:
        Judge.load()
        rows.append({"model": "judge", "revision": None, "verified": False, "problem": None})
    except (ValueError, FileNotFoundError) as error:
        rows.append({"model": "judge", "revision": None, "verified": False, "problem": str(error)})
    return rows


def _state(row: dict[str, Any]) -> str:
    if row["problem"]:
        return f"[red]{escape(row['problem'])}[/]"
    # Without listed hashes only lengths and formats can be checked, which is less than it sounds.
    state = "intact" if row["verified"] else "whole"
    return f"{state}, {row['revision']}" if row["revision"] else state


def _print(found: dict[str, Any], *, healthy: bool) -> None:
    console = out()

    def section(name: str, lines: list[tuple[str, str]]) -> None:
        console.print(f"[bold]{name}[/]")
        width = max((len(left) for left, _ in lines), default=0)
        for left, right in lines:
            console.print(f"  {left.ljust(width)}  {right}", soft_wrap=True)

    section("Versions", [(name, version or "[red]missing[/]") for name, version in found["versions"].items()])
    section("Devices", [(row["device"], row["what"]) for row in found["devices"]])
    section("Attention", [(row["backend"], row["state"]) for row in found["attention"]])
    extras = [
        (row["extra"], f"[yellow]missing[/]: {escape(row['install'])}" if row["missing"] else "complete")
        for row in found["extras"]
    ]
    section("Extras", extras)
    models = [(row["model"], _state(row)) for row in found["models"]]
    section("Shipped models", models)
    console.print("all is well" if healthy else "[red]something is wrong[/]: see above")
