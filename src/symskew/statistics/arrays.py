"""What comes in: checked, and grouped by prompt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike


def numbers(where: str, name: str, values: ArrayLike) -> Float[np.ndarray, "samples"]:
    """Flat, finite and not empty.

    Raises:
        ValueError: it is not.
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"{where}: {name} must be a list of numbers, one for each sample, got shape {array.shape}")
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(
            f"{where}: {name} must be finite, got {bad} of {array.size} that are not; leave failed samples out"
        )
    return array


class Groups(NamedTuple):
    """Which sample is of which prompt; prompts in the order of their labels, whatever the order of the samples."""

    codes: Int[np.ndarray, "samples"]
    sizes: Int[np.ndarray, "prompts"]

    @classmethod
    def of(cls, where: str, prompts: ArrayLike, *, least: int = 2, **arrays: np.ndarray) -> Groups:
        """From a label for each sample, and the arrays that must be as long.

        Raises:
            ValueError: lengths differ, labels that cannot be sorted, or fewer prompts than `least`.
        """
        labels = np.asarray(prompts)
        lengths = {name: len(array) for name, array in arrays.items()} | {"prompts": labels.size}
        if labels.ndim != 1 or len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"{where}: expected one entry for each sample in all arguments, got {found}")
        try:
            _, codes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        except TypeError as error:
            raise ValueError(f"{where}: prompts must be labels of one kind, all strings or all numbers") from error
        if len(sizes) < least:
            raise ValueError(
                f"{where}: prompts are the units, and an interval needs at least {least} of them, got {len(sizes)}"
            )
        return cls(codes, sizes)

    def sums(self, values: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "prompts"]:
        """Of each prompt's samples."""
        return np.bincount(self.codes, values, len(self.sizes))

    def means(self, values: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "prompts"]:
        """Of each prompt's samples."""
        return self.sums(values) / self.sizes
