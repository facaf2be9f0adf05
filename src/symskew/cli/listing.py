"""`symskew models`: what is embedded, and what any diffusers id would do."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import Annotated, Any

import typer

from symskew.cli.say import out


def models(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the shipped models, and the families of diffusers models that can be controlled."""
    from symskew.models import FAMILIES

    shipped, families = [_describe(name) for name in _names()], [family._asdict() for family in FAMILIES]
    if as_json:
        sys.stdout.write(json.dumps({"shipped": shipped, "families": families}, indent=1) + "\n")
        return
    console = out()
    console.print("[bold]Shipped with symskew[/]: they need no network and run on a CPU")
    for model in shipped:
        console.print(f"  [bold]{model['name']}[/]  " + "; ".join(_facts(model)))
        if model.get("description"):
            console.print(f"    {model['description']}")
    console.print()
    console.print("[bold]From the hub or a folder[/]: any diffusers pipeline of these families, by its id, such as")
    for family in FAMILIES:
        console.print(f"  {family.example}  [dim]{family.name}[/]", soft_wrap=True)
    console.print(
        "Others work where their self-attention goes through torch's scaled_dot_product_attention or diffusers' "
        "attention dispatch; a layer that is out of reach is an error, never silently left out."
    )


def _names() -> tuple[str, ...]:
    from symskew.ensemble import MODELS

    return MODELS


def _describe(name: str) -> dict[str, Any]:
    from symskew.models import find_model

    try:
        files = find_model(name)
    except ValueError as error:
        return {"name": name, "problem": str(error)}
    size = sum(path.stat().st_size for path in files.folder.rglob("*") if path.is_file())
    about = {key: value for key, value in files.info.items() if key not in ("sha256", "name")}
    licence = (importlib.metadata.metadata("symskew").get_all("License-Expression") or ["unknown"])[0]
    return {
        "name": name,
        "license": licence,
        "revision": files.revision,
        "bytes": size,
        "folder": str(files.folder),
        "control": files.control,
        **about,
    }


def _facts(model: dict[str, Any]) -> list[str]:
    if "problem" in model:
        return [f"[red]unusable[/]: {model['problem']}"]
    defaults = model.get("defaults", {})
    facts = [f"{model['bytes'] / 1e6:.1f} MB", f"licence {model['license']}"]
    facts += [f"{defaults['steps']} steps"] if "steps" in defaults else []
    facts += [f"guidance {defaults['guidance']:g}"] if "guidance" in defaults else []
    facts += [f"{what} right {share:.0%}" for what, share in model.get("accuracy", {}).items()]
    return facts
