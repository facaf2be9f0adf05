"""The judge: a small network that reads which coloured digits an image shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL.Image import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from symskew.ensemble.vocabulary import COLOUR_NAMES, COLOURS, IMAGE_SIZE, ColouredDigit

__all__ = ["ABSENT_CLASS", "CLASSES", "SEVERAL_CLASS", "UNREADABLE_CLASS", "Judge", "JudgeNetwork", "Reading"]

ABSENT_CLASS, SEVERAL_CLASS, UNREADABLE_CLASS = 10, 11, 12
CLASSES = 13
"""Classes of a colour: 0 to 9 are the digits, then absent, several digits, and ink that is no digit."""

Images = Sequence[Image] | UInt8[np.ndarray, "count 64 64 3"] | Float[Tensor, "count 3 64 64"]


class JudgeNetwork(nn.Module):
    """One reader for all colours: the image is unmixed into six planes of ink, and each plane is read by the same CNN.

    Sharing the reader makes every digit of the training set a lesson for every colour. A plane comes with the ink of
    the other colours beside it, so that a stroke hidden under a neighbour can be told from a broken one.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        palette = torch.tensor([COLOURS[name] for name in COLOUR_NAMES]) / 255
        self.register_buffer("palette", palette / palette.amax(1, keepdim=True), persistent=False)
        self.features = 4 * width
        sizes = ((2, width, 5, 2), (width, 2 * width, 3, 2), (2 * width, 2 * width, 3, 1), (2 * width, 4 * width, 3, 2),
                 (4 * width, 4 * width, 3, 1))  # fmt: skip
        self.trunk = nn.Sequential()
        for inputs, outputs, kernel, stride in sizes:
            self.trunk.append(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
            self.trunk.append(nn.BatchNorm2d(outputs))
            self.trunk.append(nn.ReLU())
        self.hidden = nn.Linear(8 * width, 4 * width)
        self.classify = nn.Linear(4 * width, CLASSES)

    def planes(self, images: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch 6 2 64 64"]:
        """Per colour, its own ink and that of all others (0…1), by nearness of each pixel's hue to the six colours."""
        brightness = images.amax(1)
        hue = images / brightness.unsqueeze(1).clamp(min=0.05)
        distance = (hue.unsqueeze(1) - self.palette[None, :, :, None, None]).square().sum(2)  # pyright: ignore
        own = (distance * -8).softmax(1) * brightness.unsqueeze(1)
        return torch.stack([own, brightness.unsqueeze(1) - own], 2)

    def embed(self, planes: Float[Tensor, "count 2 64 64"]) -> Float[Tensor, "count features"]:
        """The features of single planes that the class is read from: greatest and mean evidence over the image."""
        evidence = self.trunk(planes).flatten(2)
        return self.hidden(torch.cat([evidence.amax(2), evidence.mean(2)], 1)).relu()

    def read_planes(self, planes: Float[Tensor, "count 2 64 64"]) -> Float[Tensor, "count 13"]:
        """Class logits of single planes."""
        return self.classify(self.embed(planes))

    def forward(self, images: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch 6 13"]:
        """Class logits of every colour of images on 0…1."""
        return self.read_planes(self.planes(images).flatten(0, 1)).unflatten(0, (len(images), len(COLOUR_NAMES)))


@dataclass(frozen=True)
class Reading:
    """What the judge sees in one image.

    Attributes:
        objects: the digits read, one for each colour that shows exactly one.
        several: colours in which there is more than one digit.
        unreadable: colours whose ink is no digit (fused, broken, half drawn).
        log_probabilities: natural logarithms per colour and class, (6, 13).
    """

    objects: frozenset[ColouredDigit]
    several: frozenset[str]
    unreadable: frozenset[str]
    log_probabilities: Float[np.ndarray, "6 13"]

    @classmethod
    def of(cls, log_probabilities: Float[np.ndarray, "6 13"]) -> Reading:
        """The most probable class of each colour."""
        classes = dict(zip(COLOUR_NAMES, log_probabilities.argmax(-1).tolist(), strict=True))
        return cls(
            frozenset(ColouredDigit(colour, c) for colour, c in classes.items() if c < ABSENT_CLASS),
            frozenset(colour for colour, c in classes.items() if c == SEVERAL_CLASS),
            frozenset(colour for colour, c in classes.items() if c == UNREADABLE_CLASS),
            log_probabilities,
        )

    def log_likelihood(self, objects: Iterable[ColouredDigit]) -> float:
        """Log-probability (nats) that the image shows exactly these objects: the sum over the six colours."""
        classes = np.full(len(COLOUR_NAMES), ABSENT_CLASS)
        for item in objects:
            classes[COLOUR_NAMES.index(item.colour)] = item.digit
        return float(self.log_probabilities[np.arange(len(classes)), classes].sum())

    def __str__(self) -> str:
        parts = sorted(map(str, self.objects)) + [f"several {c}" for c in sorted(self.several)]
        parts += [f"unreadable {c}" for c in sorted(self.unreadable)]
        return ", ".join(parts) or "nothing"


class Judge:
    """Reads images of Ensemble.

    >>> reading = Judge.load().read(images)[0]  # doctest: +SKIP
    >>> reading.objects  # doctest: +SKIP
    frozenset({ColouredDigit(colour='red', digit=3)})
    """

    def __init__(self, network: JudgeNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, path: str | Path | None = None) -> Judge:
        """The shipped judge, or the one whose weights (safetensors) are at `path`.

        Raises:
            FileNotFoundError: there is no file; `ValueError`: it is not a judge's weights.
        """
        file = Path(path) if path else Path(__file__).parent / "models" / "judge.safetensors"
        if not file.is_file():
            raise FileNotFoundError(f"Judge.load: no weights at {file}; the package may be damaged: install it again")
        try:
            weights = {name: value.float() for name, value in load_file(file).items()}
            network = JudgeNetwork(weights["trunk.0.weight"].shape[0])
            network.load_state_dict(weights, strict=False)
        except Exception as error:
            raise ValueError(f"Judge.load: {file} does not hold a judge's weights ({error})") from error
        return cls(network)

    @torch.inference_mode()
    def log_probabilities(self, images: Images, *, batch: int = 128) -> Float[Tensor, "count 6 13"]:
        """Log-probabilities (nats) per colour and class; arguments as for `read`."""
        parts = as_tensor(images).split(batch)
        return (
            torch.cat([self.network(part).log_softmax(-1) for part in parts]) if parts else torch.zeros(0, 6, CLASSES)
        )

    def read(self, images: Images, *, batch: int = 128) -> list[Reading]:
        """What each image shows. Images: PIL, 8-bit (count, 64, 64, 3), or float (count, 3, 64, 64) on 0…1."""
        return [Reading.of(row) for row in self.log_probabilities(images, batch=batch).double().numpy()]

    @torch.inference_mode()
    def features(self, images: Images, *, batch: int = 128) -> Float[Tensor, "count 768"]:
        """The network's last hidden layer, colour by colour: for distances between sets of images, and diversity."""
        return torch.cat([self.network.embed(self.network.planes(part).flatten(0, 1)).view(len(part), -1)
                          for part in as_tensor(images).split(batch)])  # fmt: skip


def as_tensor(images: Images) -> Float[Tensor, "count 3 64 64"]:
    """Images in any of the accepted forms as float32 on 0…1; `ValueError` where they are not 64×64 RGB."""
    if not isinstance(images, Tensor):
        array = images if isinstance(images, np.ndarray) else np.stack([np.asarray(i.convert("RGB")) for i in images])
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
            raise ValueError(f"Judge: expected 8-bit images (count, 64, 64, 3), got {array.dtype} {array.shape}")
        images = torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2).float() / 255
    if images.ndim != 4 or images.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"Judge: expected images (count, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), got {tuple(images.shape)}")
    return images.float()
