"""Random numbers of one sample, by name: a function of its seed alone, in any process and any order."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


def seeds_of(batch: Mapping[str, Any]) -> list[int]:
    """The samples' seeds on the host: as the loader gives them there, or else from the tensor ``seed``, perhaps of a GPU."""
    seeds: list[int] = batch["seeds"] if "seeds" in batch else batch["seed"].tolist()
    return seeds


class Draws:
    """What is random about one sample.

    A number depends on the seed and on its own name alone: a branch that is not taken leaves the others as they are. So loading
    processes and a model on another device agree without talking to each other, as do a run and its continuation.

    Args:
        seed: seed of the sample, in [0, 2^63).
        prefix: text that goes before every name.
    """

    def __init__(self, seed: int, prefix: str = "") -> None:
        self.seed = int(seed)
        self.prefix = prefix

    def part(self, name: str) -> Draws:
        """The draws of one part of a recipe, whose names are its own."""
        return Draws(self.seed, f"{self.prefix}{name}.")

    def _word(self, name: str) -> int:
        text = f"{self.prefix}{name}".encode()
        return zlib.crc32(text) << 32 | zlib.crc32(text[::-1])  # Python's own hash differs between processes

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high); `low` where the two are equal."""
        bits = np.random.Philox(key=np.array([self.seed, self._word(name)], np.uint64)).random_raw()
        return low + (int(bits) >> 11) * 2.0**-53 * (high - low)

    def coin(self, name: str, probability: float) -> bool:
        """True with this probability."""
        return self.uniform(name) < probability

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self.uniform(name) * (high - low + 1))

    def choice(self, name: str, members: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of `members`, with probabilities in proportion to `weights`; all alike when None."""
        shares = np.cumsum([1.0] * len(members) if weights is None else weights)
        place = int(np.searchsorted(shares, self.uniform(name) * shares[-1], side="right"))
        return members[min(place, len(members) - 1)]

    def order(self, name: str, count: int) -> list[int]:
        """The numbers 0 to count - 1 in random order."""
        return sorted(range(count), key=lambda i: self.uniform(f"{name}[{i}]"))

    def generator(self, name: str, device: torch.device | str = "cpu") -> torch.Generator:
        """For fields of numbers, as noise is. Devices of different kinds draw different numbers of the same law."""
        state = np.random.SeedSequence([self.seed, self._word(name)]).generate_state(1, np.uint64)[0]
        return torch.Generator(device).manual_seed(int(state >> 1))

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers of this shape, float32, on the CPU."""
        return torch.randn(tuple(shape), generator=self.generator(name))
