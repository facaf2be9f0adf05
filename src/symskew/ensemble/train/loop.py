"""The loop that every training of a denoiser runs: budget, learning rate, average, log, checkpoints that resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress, TextColumn
from torch import Tensor, nn

from symskew.ensemble.prompts import make_prompts
from symskew.ensemble.train.run import Average, Budget, Log, learning_rate, load_checkpoint, save_checkpoint

__all__ = ["DROPOUT", "fit", "sample_grid"]

DROPOUT = 0.1  # of the captions, replaced by what the pipeline uses as the unconditional branch


def fit(
    weights: list[nn.Parameter],
    loss_at: Callable[[int], Tensor],
    folder: Path,
    *,
    run: str,
    batch: int,
    peak: float,
    minutes: float | None = None,
    steps: int | None = None,
    stop: int | None = None,
    every: float = 300.0,
    report: int = 25,
    flat: float = 0.5,
    show: Callable[[Path], None] | None = None,
) -> None:
    """Fit the weights and leave their average in place; goes on from `folder/{run}.pt` if it is there.

    Args:
        weights: what is learned.
        loss_at: the loss of a step, on data that depend on the step alone, so that a resumed run continues exactly.
        run: name of the checkpoint, the log and the sample grids.
        batch: images in a step, for the log.
        peak: learning rate between the warm-up and the decay.
        minutes: wall-clock budget over all sittings, or
        steps: budget in steps.
        stop: leave off after this step of the budget (to be resumed).
        every: seconds between checkpoints and sample grids.
        report: steps between lines of `folder/{run}.jsonl`, each with the mean loss since the last.
        flat: share of the budget at which the learning rate begins to fall.
        show: draws a sample grid to a file with the weights as they are then (the average), at every checkpoint.
    """
    optimizer = torch.optim.AdamW(weights, lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    average = Average(weights, 0.995)  # of the last 200 steps or so: a training has a few thousand
    step, spent = 0, 0.0
    if (state := load_checkpoint(folder / f"{run}.pt")) is not None:
        with torch.no_grad():
            for weight, shadow, kept, kept_shadow in zip(
                weights, average.shadow, state["weights"], state["average"], strict=True
            ):
                weight.copy_(kept)
                shadow.copy_(kept_shadow)
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    budget, log = Budget(minutes=minutes, steps=steps, spent=spent), Log(folder / f"{run}.jsonl")

    def keep() -> None:
        save_checkpoint(folder / f"{run}.pt", weights=[w.detach() for w in weights], average=average.shadow,
                        optimizer=optimizer.state_dict(), step=step, spent=budget.spent)  # fmt: skip
        if show is not None:
            average.swap()
            show(folder / f"{run}-samples" / f"step-{step:06d}.png")
            average.swap()

    recent: list[float] = []
    saved, first, start = budget.spent, True, step
    columns = (*Progress.get_default_columns(), TextColumn("step {task.fields[step]} · loss {task.fields[loss]:.4f}"))
    with Progress(*columns) as progress:
        task = progress.add_task(run, total=1.0, step=step, loss=float("nan"))
        while (share := budget.share(step)) < 1 and (stop is None or step < stop):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(share, peak, flat=flat)
            loss = loss_at(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([w for w in weights if w.grad is not None], 1.0)
            optimizer.step()
            average.update(step)
            step += 1
            recent.append(loss.item())
            if first:
                first, start = False, step
                budget.restart()  # what went before was compilation
            if step % report == 0:
                speed = (step - start) * batch / max(budget.spent - spent, 1e-9)
                log(step=step, images=step * batch, seconds=budget.spent, loss=float(np.mean(recent)),
                    rate=optimizer.param_groups[0]["lr"], speed=speed)  # fmt: skip
                progress.update(task, step=step, loss=float(np.mean(recent)))
                recent.clear()
            progress.update(task, completed=share)
            if budget.spent - saved > every:
                keep()
                saved = budget.spent
    keep()
    average.swap()


@torch.no_grad()
def sample_grid(pipeline: Any, path: Path, *, count: int = 24, guidance: float = 3.0, **arguments: Any) -> None:
    """A picture of the same few prompts each time (of `make_prompts`), for the eye; `arguments` go to the pipeline."""
    prompts = [prompt.text for prompt in make_prompts(count, seed=7)]
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(n) for n in range(count)]
    images = pipeline(
        prompts, num_inference_steps=20, guidance_scale=guidance, generator=generators, output_type="np", **arguments
    ).images
    rows = np.asarray(images).reshape(-1, 8, 64, 64, 3).transpose(0, 2, 1, 3, 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((rows.reshape(-1, 8 * 64, 3) * 255).round().astype(np.uint8)).save(path)
