"""What the two synthetic studies of Layered Unlearning (arXiv 2505.09500) share: arms, training, tables.

An arm is a chain of stages that begins at a fresh model. Models of several seeds are trained side by side, stacked
along the first axis of every parameter; they never mix, so a model's figures do not depend on its neighbours.
"""  # fmt: skip

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
import plotly.express as px
import torch
from jaxtyping import Float, Int
from plotly.graph_objects import Figure
from torch import Tensor

from mechunlearn.evaluation import bootstrap_interval


class Stage(NamedTuple):
    """What one stage of training teaches of the two forget tasks: True learns, False unlearns, None leaves it out."""

    a: bool | None
    b: bool | None
    times: int = 1  # how many times the usual number of epochs


SYMBOLS = ["circle", "circle-open", "diamond", "diamond-open"]
LEARN, FORGET = Stage(True, True), Stage(False, False)
ARMS: dict[str, tuple[Stage, ...]] = {
    "original": (LEARN,),
    "U": (LEARN, FORGET),
    "LU": (LEARN, Stage(False, True), FORGET),
    "U twice (LU's stages, steps, restarts)": (LEARN, FORGET, FORGET),
    "U with LU's steps, one stage": (LEARN, Stage(False, False, 2)),
    "LU, B left out of stage 1": (LEARN, Stage(False, None), FORGET),
    "LU reversed (B, then A and B)": (LEARN, Stage(True, False), FORGET),
    "U, 4 times longer": (LEARN, Stage(False, False, 4)),
    "LU, last stage 4 times longer": (LEARN, Stage(False, True), Stage(False, False, 4)),
    "LU on a fresh model (A never learned)": (Stage(False, True), FORGET),
    "never learned (A, B trained as forgotten)": (FORGET,),
    "never learned, LU's stages": (FORGET, FORGET, FORGET),
    "never learned (A, B absent)": (Stage(None, None),),
}


def generator(*words: object) -> torch.Generator:
    """A generator that depends on the words alone. Arms that share words share their data: comparisons are paired."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, words)).encode()))


def train(
    parameters: Sequence[Tensor],
    loss: Callable[[Int[Tensor, "model batch"]], Float[Tensor, " model"]],
    generators: Sequence[torch.Generator],
    *,
    size: int,
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """Train stacked models in place with a new AdamW, each in an order of its own.

    Args:
        parameters: [model, ...] each.
        loss: from the picked examples of every model to its mean loss on them.
        generators: one a model; gives the orders.
        size: examples a model; the last batch of an epoch may be smaller.
    """
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    for _ in range(epochs):
        order = torch.stack([torch.randperm(size, generator=one) for one in generators])
        for picked in order.split(batch, dim=1):
            optimizer.zero_grad()
            loss(picked).sum().backward()
            optimizer.step()
    for parameter in parameters:
        parameter.requires_grad_(False)


def blocks(seeds: Sequence[int], size: int) -> list[list[int]]:
    """Seeds in the blocks that are trained side by side and kept as one unit."""
    return [list(seeds[start : start + size]) for start in range(0, len(seeds), size)]


def figure_of(values: pd.Series, digits: int = 2) -> str:
    """Mean, 95 % bootstrap interval over seeds, standard deviation."""
    low, high = bootstrap_interval(values.to_numpy())
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}] ± {values.std():.{digits}f}"


class Cell(NamedTuple):
    """A published figure and, where published, its standard deviation over seeds."""

    model: str
    relearned: str
    measure: str
    value: float
    sd: float | None = None


def compare(frame: pd.DataFrame, published: Sequence[Cell]) -> pd.DataFrame:
    """Published and here, and whether they are within two standard deviations: the published one, else ours."""
    rows = []
    for cell in published:
        values = frame.query("model == @cell.model and relearned == @cell.relearned")[cell.measure]
        sd = values.std() if cell.sd is None else cell.sd
        apart = abs(values.mean() - cell.value)
        rows.append(
            {
                "model": cell.model,
                "relearned": cell.relearned,
                "measured": cell.measure,
                "published": f"{cell.value:.2f}" + ("" if cell.sd is None else f" ± {cell.sd:.2f}"),
                "here": figure_of(values),
                # A published figure has two decimals: half of the last one is rounding.
                "within 2 sd": "yes" if apart <= 2 * sd + 0.005 else f"**no**, {apart:.2f} apart",
            }
        )
    return pd.DataFrame(rows)


def controls(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a model: before the attack, then what relearning one task did to the other and to what is to be kept."""
    rows = []
    for name, part in frame.groupby("model", sort=False):
        by = dict(list(part.groupby("relearned", sort=False)))
        before = " / ".join(f"{by['none'][measure].mean():.2f}" for measure in ("A", "B", "R"))
        rows.append(
            {
                "model": name,
                "A / B / R before": before,
                "B after relearning A": figure_of(by["A"]["B"]),
                "A after relearning B": figure_of(by["B"]["A"]),
                "R after A / B": f"{by['A']['R'].mean():.2f} / {by['B']['R'].mean():.2f}",
            }
        )
    return pd.DataFrame(rows)


def picture(values: pd.DataFrame, seen: str, spacing: float) -> Figure:
    """One panel a `panel`, one line a model: mean over seeds with its interval, every seed as a faint point."""
    rows = []
    for key, part in values.groupby(["panel", "model", "task"], sort=False)["value"]:
        low, high = bootstrap_interval(part.to_numpy())
        rows.append([*key, part.mean(), part.mean() - low, high - part.mean()])
    line = pd.DataFrame(rows, columns=["panel", "model", "task", "mean", "down", "up"])
    style = {
        "color": "task",
        "symbol": "task",
        "symbol_sequence": SYMBOLS,
        "facet_col": "panel",
        "facet_col_spacing": spacing,
        "template": "plotly_white",
    }
    figure = px.scatter(line, x="mean", y="model", error_x="up", error_x_minus="down", **style)
    figure.update_traces(marker_size=10, marker_line_width=2)
    faint = px.scatter(values, x="value", y="model", opacity=0.25, **style)
    faint.update_traces(showlegend=False, marker_size=5)
    figure.add_traces(faint.data)
    lists = [tuple(part["model"].unique()) for _, part in values.groupby("panel", sort=False)]
    for place, models in enumerate(lists, start=1):
        figure.update_yaxes(
            col=place, matches=None, title_text="", categoryorder="array", categoryarray=models,
            range=[len(models) - 0.4, -0.6], showticklabels=place == 1 or models != lists[0],
        )  # fmt: skip
    figure.for_each_annotation(lambda note: note.update(text=note.text.removeprefix("panel=")))
    figure.update_xaxes(title_text=seen, range=[-0.04, 1.04])
    return figure.update_layout(legend={"title_text": "", "orientation": "h", "y": 1.12}, margin_l=10)


def returned(frame: pd.DataFrame) -> pd.DataFrame:
    """What an attack on one task brought back of the other: columns model, relearned, seed, task, value."""
    there = []
    for one, other in (("B", "A"), ("A", "B")):
        rows = frame[frame["relearned"] == one]
        there.append(rows.assign(task=f"{other} after relearning {one}", value=rows[other]))
    return pd.concat(there, ignore_index=True)


def difference(frame: pd.DataFrame, first: str, second: str, relearned: str) -> str:
    """What the attack on one task brought back of the other, first model less second, paired by seed."""
    attacked = returned(frame)
    wide = attacked[attacked["relearned"] == relearned].pivot(index="seed", columns="model", values="value")
    return figure_of(wide[first] - wide[second])
