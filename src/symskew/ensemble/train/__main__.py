"""`python -m symskew.ensemble.train`: make the judge and the miniature model from MNIST's files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from symskew.ensemble.mnist import Digits, cache_folder, load_mnist

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
say = Console(stderr=True).print

Folder = Annotated[Path, typer.Option(help="Where checkpoints, latents, logs and sample grids are kept.")]
Mnist = Annotated[Path | None, typer.Option(help="Folder with MNIST's four .gz files.")]
Minutes = Annotated[float, typer.Option(help="Wall-clock budget over all sittings; the learning rate follows it.")]
Steps = Annotated[int | None, typer.Option(help="Budget in steps instead: repeats exactly.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Workers = Annotated[int, typer.Option(help="Processes that draw scenes.")]
Run = Annotated[str, typer.Option(help="Name of the run: of its checkpoint, log and sample grids.")]
Size = Annotated[str, typer.Option(help="The model's size: sdxl (the shipped one) or tiny (for trying out).")]
Init = Annotated[str, typer.Option(help="Begin from `scratch`, or from the `shipped` weights for another sitting.")]
Out = Annotated[Path | None, typer.Option(help="Where to write; default: into the package.")]

_HOME = cache_folder()
_PACKAGE = Path(__file__).parents[1] / "models"


@app.command()
def data(
    mnist: Mnist = None, out: Annotated[Path, typer.Option(help="The picture.")] = Path("scenes.png"), seed: Seed = 0
) -> None:
    """Find or fetch MNIST, and draw a picture of 96 training scenes."""
    from PIL import Image

    from symskew.ensemble.data import make_scenes

    images = make_scenes(96, _digits(mnist), seed=seed).images
    Image.fromarray(images.reshape(8, 12, 64, 64, 3).swapaxes(1, 2).reshape(8 * 64, 12 * 64, 3)).save(out)
    say(f"96 scenes in {out}")


@app.command()
def autoencoder(
    folder: Folder = _HOME, mnist: Mnist = None, minutes: Minutes = 8, steps: Steps = None, seed: Seed = 0,
    images: Annotated[int, typer.Option(help="Scenes to learn from.")] = 20_000, workers: Workers = 2,
) -> None:  # fmt: skip
    """Train the autoencoder (64×64 to 16×16×4)."""
    from symskew.ensemble.train.autoencoder import train_autoencoder

    train_autoencoder(_digits(mnist), folder, minutes=None if steps else minutes, steps=steps, seed=seed,
                      images=images, workers=workers)  # fmt: skip


@app.command()
def latents(
    folder: Folder = _HOME, mnist: Mnist = None, workers: Workers = 2, seed: Seed = 100,
    count: Annotated[int, typer.Option(help="Training images.")] = 120_000, init: Init = "scratch",
) -> None:  # fmt: skip
    """Draw the training images and keep their latents, of the folder's autoencoder or of the shipped one."""
    from symskew.ensemble.train.latents import encode_scenes

    encode_scenes(_autoencoder(folder, init), _digits(mnist), folder, count=count, seed=seed, workers=workers)


@app.command()
def judge(
    folder: Folder = _HOME, mnist: Mnist = None, minutes: Minutes = 12, steps: Steps = None, seed: Seed = 0,
    out: Out = None, images: Annotated[int, typer.Option(help="Scenes to learn from.")] = 24_000, workers: Workers = 1,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    spoilt: Annotated[float, typer.Option(help="Share of scenes spoilt, to learn `several` and `unreadable`.")] = 0.3,
    init: Init = "scratch",
) -> None:  # fmt: skip
    """Train the judge, half of its images through the autoencoder, and test it on images of MNIST's test digits."""
    from symskew.ensemble.judge import Judge
    from symskew.ensemble.train.judge import judge_accuracy, train_judge

    target = out or _PACKAGE / "judge.safetensors"
    start = _PACKAGE / "judge.safetensors" if _shipped(init) else None
    train_judge(_digits(mnist), folder, target, autoencoder=_autoencoder(folder, init),
                minutes=None if steps else minutes, steps=steps,
                seed=seed, images=images, peak=rate, spoilt=spoilt, start=start, workers=workers)  # fmt: skip
    say(judge_accuracy(Judge.load(target), load_mnist("test", mnist)))


@app.command()
def unet(
    folder: Folder = _HOME, minutes: Minutes = 90, steps: Steps = None, seed: Seed = 0, size: Size = "sdxl",
    batch: Annotated[int, typer.Option(help="Images per step.")] = 64,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 1.2e-3,
    init: Init = "scratch", run: Run = "unet",
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Use torch.compile.")] = True,
) -> None:  # fmt: skip
    """Train the UNet and the text encoders; goes on from the run's checkpoint if there is one.

    For another sitting from the shipped weights with a fresh optimiser: `--init shipped --run second`.
    """
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline

    from symskew.ensemble import path
    from symskew.ensemble.build import make_pipeline
    from symskew.ensemble.train.latents import load_latents
    from symskew.ensemble.train.unet import train_unet

    if _shipped(init):
        pipeline = StableDiffusionXLPipeline.from_pretrained(path("ensemble-sdxl"))
    else:
        pipeline = make_pipeline(size, _autoencoder(folder, init), seed=seed)
    train_unet(pipeline, load_latents(folder), folder, minutes=None if steps else minutes, steps=steps, batch=batch,
               peak=rate, seed=seed, run=run, compiled=compiled)  # fmt: skip


@app.command()
def sd3(
    folder: Folder = _HOME, minutes: Minutes = 120, steps: Steps = None, seed: Seed = 0,
    size: Annotated[str, typer.Option(help="sd3 (the shipped one) or tiny (for trying out).")] = "sd3",
    batch: Annotated[int, typer.Option(help="Images per step.")] = 128,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    init: Init = "scratch",
    run: Run = "sd3",
    teacher: Annotated[
        bool, typer.Option("--teacher/--no-teacher", help="Learn what ensemble-sdxl predicts, instead of the data.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Use torch.compile.")] = True,
) -> None:  # fmt: skip
    """Train the small SD3's transformer and text encoders; goes on from the run's checkpoint if there is one.

    For another sitting from the shipped weights with a fresh optimiser: `--init shipped --run second`.
    """
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline

    from symskew.ensemble import path
    from symskew.ensemble.build_sd3 import make_sd3_pipeline
    from symskew.ensemble.train.flow import train_sd3
    from symskew.ensemble.train.latents import load_latents

    if _shipped(init):
        pipeline = StableDiffusion3Pipeline.from_pretrained(path("ensemble-sd3"))
    else:
        pipeline = make_sd3_pipeline(size, _autoencoder(folder, init), seed=seed)
    train_sd3(pipeline, load_latents(folder), folder, minutes=None if steps else minutes, steps=steps, batch=batch,
              peak=rate, seed=seed, run=run, compiled=compiled,
              teacher=path("ensemble-sdxl") if teacher else None)  # fmt: skip


@app.command()
def export(
    folder: Folder = _HOME, out: Out = None,
    model: Annotated[str, typer.Option(help="ensemble-sdxl or ensemble-sd3.")] = "ensemble-sdxl",
    size: Annotated[str | None, typer.Option(help="The size it was trained at; default: the shipped one.")] = None,
    run: Annotated[str | None, typer.Option(help="Name of the run; default: unet or sd3.")] = None,
    guidance: Annotated[float, typer.Option(help="The model's default guidance.")] = 3.0,
    steps: Annotated[int, typer.Option(help="The model's default number of steps.")] = 30,
) -> None:  # fmt: skip
    """Write the averaged weights of the checkpoint as a model folder (float16)."""
    from symskew.ensemble.build import make_pipeline
    from symskew.ensemble.build_sd3 import make_sd3_pipeline
    from symskew.ensemble.train.export import read_checkpoint, ship

    # SD3's pipeline puts 256 zeros in T5's place unless told otherwise; with fewer, images are alike and take less.
    kinds = {
        "ensemble-sdxl": (make_pipeline, "sdxl", "unet", {}),
        "ensemble-sd3": (make_sd3_pipeline, "sd3", "sd3", {"arguments": {"max_sequence_length": 24}}),
    }
    if model not in kinds:
        raise typer.BadParameter(f"expected {' or '.join(kinds)}, got {model!r}", param_hint="--model")
    make, own_size, own_run, more = kinds[model]
    pipeline = make(size or own_size, _autoencoder(folder, "scratch"))
    progress = read_checkpoint(pipeline, folder, run or own_run)
    target = out or _PACKAGE / model
    ship(pipeline, target, {"defaults": {"steps": steps, "guidance": guidance, **more}, "training": progress})
    say(f"{sum(f.stat().st_size for f in target.rglob('*') if f.is_file()) / 1e6:.2f} MB in {target}")


@app.command(name="all")
def everything(folder: Folder = _HOME, mnist: Mnist = None, minutes: Minutes = 90, seed: Seed = 0) -> None:
    """Everything in order: autoencoder, latents, judge, both models. What the folder already has is kept."""
    if not (folder / "vae" / "config.json").is_file():
        autoencoder(folder, mnist, seed=seed)
    if not (folder / "latents.npy").is_file():
        latents(folder, mnist)
    judge(folder, mnist, seed=seed)
    unet(folder, minutes, seed=seed)
    export(folder)
    sd3(folder, minutes, seed=seed, teacher=True)
    export(folder, model="ensemble-sd3")


def _shipped(init: str) -> bool:
    if init not in ("scratch", "shipped"):
        raise typer.BadParameter(f"expected scratch or shipped, got {init!r}", param_hint="--init")
    return init == "shipped"


def _autoencoder(folder: Path, init: str) -> AutoencoderKL:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from symskew.ensemble import path

    place = (path("ensemble-sdxl") if _shipped(init) else folder) / "vae"
    if not place.is_dir():
        say(f"{folder} holds no autoencoder; run `train autoencoder` first, or add --init shipped", style="red")
        raise typer.Exit(2)
    return AutoencoderKL.from_pretrained(place)


def _digits(folder: Path | None) -> Digits:
    try:
        return load_mnist("train", folder)
    except FileNotFoundError as error:
        say(str(error), style="red")
        raise typer.Exit(2) from error


if __name__ == "__main__":
    app()
