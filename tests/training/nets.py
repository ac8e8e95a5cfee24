"""A small network with dropout, numbers to learn, and what to compare it by."""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


class Net(nn.Module):
    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Linear(3, 5)
        self.drop = nn.Dropout(dropout)
        self.outer = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.drop(torch.tanh(self.inner(x))))


def data(rows: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=generator)
    return x, x.sum(1, keepdim=True)


def squared(model: nn.Module) -> Callable[[tuple[Tensor, Tensor]], dict[str, Tensor]]:
    return lambda batch: {"loss": (model(batch[0]) - batch[1]).square().mean()}


def forever(*batches: object) -> Iterator[object]:
    return itertools.cycle(batches)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], **close: float) -> bool:
    return all(torch.allclose(one[name], other[name], **close) for name in one)
