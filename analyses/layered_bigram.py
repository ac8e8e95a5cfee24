"""Layered Unlearning (arXiv 2505.09500, section 4.2) on a bigram language model: published and here.

    python analyses/layered_bigram.py [--out runs/layered-bigram] [--quick]

One attention layer, eleven seeds, every control, component swaps before relearning, and patches after it.
Blocks of seeds are kept in the run folder when they are done, so the script goes on where it was stopped.
Writes analyses/results/layered_bigram.md with its picture and frame.
"""  # fmt: skip

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float, Int
from layered import ARMS, Stage, blocks, generator, train
from layered_bigram_page import figure, page
from torch import Tensor
from torch.nn.functional import cross_entropy

from mechunlearn.runs import RunFolder, write_frame

RESULTS = Path(__file__).parent / "results"
A, B, R = range(3)
EPSILON = 0.05
WIDTH, HEADS, LENGTH = 32, 2, 8
SHAPES = {"W_E": (3, WIDTH), **{f"W_{one}": (WIDTH, WIDTH) for one in "QKVO"}, "W_U": (WIDTH, 3)}
GROUPS = {"QK": ("W_Q", "W_K"), "OV": ("W_V", "W_O"), "UE": ("W_E", "W_U")}
SWAPS = ["".join(bits) for bits in itertools.product("01", repeat=3)]  # QK, OV, UE: 1 is taken from LU
BLOCK = 12  # seeds trained side by side

Weights = dict[str, Float[Tensor, "model rows columns"]]


class Settings(NamedTuple):
    """The published settings (section 4.2 and the authors' code)."""

    seeds: int = 11
    more_seeds: int = 59  # of U and LU alone: are our eleven unlike the published eleven by chance?
    sequences: int = 10_000
    epochs: int = 2
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


QUICK = Settings(seeds=2, more_seeds=3, sequences=32, epochs=1)


def matrix(a: bool, b: bool) -> Float[Tensor, "source next"]:
    """The bigram probabilities; a row that is not learned is uniform."""
    learned = torch.tensor([EPSILON, EPSILON, 1 - 2 * EPSILON])
    uniform = torch.full((3,), 1 / 3)
    kept = torch.tensor([(1 - EPSILON) / 2, (1 - EPSILON) / 2, EPSILON])
    return torch.stack([learned if a else uniform, learned if b else uniform, kept])


def sequences(bigrams: Float[Tensor, "source next"], count: int, rng: torch.Generator) -> Int[Tensor, "count 8"]:
    """Sequences with a uniform first token."""
    tokens = [torch.randint(3, (count,), generator=rng)]
    for _ in range(LENGTH - 1):
        tokens.append(torch.multinomial(bigrams[tokens[-1]], 1, generator=rng).squeeze(-1))
    return torch.stack(tokens, dim=1)


def positions(length: int, width: int) -> Float[Tensor, "pos d_head"]:
    """Added to queries and keys: angle pos / 10000^(2j / width), sine for even j, cosine for odd; none at the start."""
    j = torch.arange(width)
    angle = torch.arange(length)[:, None] / 10_000 ** (2 * j / width)
    return torch.where(j % 2 == 0, angle.sin(), angle.cos()) * (torch.arange(length)[:, None] > 0)


def fresh(seeds: list[int]) -> Weights:
    """Starting weights, uniform within 1/sqrt(fan-in), as torch draws linear layers."""
    rngs = [generator(seed, "start") for seed in seeds]
    return {
        name: torch.stack([(torch.rand(shape, generator=rng) * 2 - 1) / shape[0] ** 0.5 for rng in rngs])
        for name, shape in SHAPES.items()
    }


def embed(w: Weights, tokens: Int[Tensor, "model batch pos"]) -> Float[Tensor, "model batch pos d_model"]:
    return w["W_E"][torch.arange(len(tokens))[:, None, None], tokens]


def heads(x: Float[Tensor, "model batch pos d_model"], weight: Tensor) -> Float[Tensor, "model batch head pos d_head"]:
    projected = rearrange(x, "m b p d -> m (b p) d") @ weight
    return rearrange(projected, "m (b p) (h d) -> m b h p d", p=x.shape[2], h=HEADS)


def pattern(w: Weights, x: Tensor) -> Float[Tensor, "model batch head query key"]:
    """Where attention looks."""
    place = positions(x.shape[2], WIDTH // HEADS)
    q, k = heads(x, w["W_Q"]) + place, heads(x, w["W_K"]) + place
    scores = q @ k.mT / (WIDTH // HEADS) ** 0.5
    ahead = torch.ones(x.shape[2], x.shape[2], dtype=torch.bool).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(dim=-1)


def write(w: Weights, x: Tensor, look: Tensor) -> Float[Tensor, "model batch pos d_model"]:
    """What attention adds to the residual when it looks there."""
    mixed = rearrange(look @ heads(x, w["W_V"]), "m b h p d -> m (b p) (h d)")
    return rearrange(mixed @ w["W_O"], "m (b p) d -> m b p d", p=x.shape[2])


def unembed(w: Weights, x: Tensor) -> Float[Tensor, "model batch pos 3"]:
    return x @ w["W_U"][:, None]


def forward(w: Weights, tokens: Int[Tensor, "model batch pos"]) -> Float[Tensor, "model batch pos 3"]:
    """Logits."""
    x = embed(w, tokens)
    return unembed(w, x + write(w, x, pattern(w, x)))


def patched(w: Weights, donor: Weights, site: str, tokens: Tensor) -> Float[Tensor, "model batch pos 3"]:
    """Logits with one activation of attention from the donor: its pattern, what it writes from a place, or both."""
    x, theirs = embed(w, tokens), embed(donor, tokens)
    look = pattern(w, x) if site == "values" else pattern(donor, theirs)
    added = write(w, x, look) if site == "pattern" else write(donor, theirs, look)
    return unembed(w, x + added)


def train_stage(w: Weights, stage: Stage, name: str, seeds: list[int], settings: Settings, only: str = "") -> Weights:
    """The weights after a stage on fresh sequences. A task left out, or not in `only`, gives no loss as a source."""
    bigrams = matrix(stage.a is not False, stage.b is not False)
    data = torch.stack(
        [sequences(bigrams, settings.sequences, generator(seed, name, stage.a, stage.b)) for seed in seeds]
    )
    counted = [stage.a is not None, stage.b is not None, True] if not only else [one in only for one in "ABR"]
    scored = torch.tensor(counted)
    w = {key: weight.clone() for key, weight in w.items()}
    rows = torch.arange(len(seeds))[:, None]

    def loss(picked: Tensor) -> Tensor:
        tokens = data[rows, picked]
        sources, targets = tokens[..., :-1], tokens[..., 1:]
        losses = cross_entropy(forward(w, sources).movedim(-1, 1), targets, reduction="none")
        kept = scored[sources]
        return (losses * kept).sum(dim=(1, 2)) / kept.sum(dim=(1, 2))

    orders = [generator(seed, name, "order") for seed in seeds]
    train(
        list(w.values()), loss, orders, size=settings.sequences, epochs=settings.epochs * stage.times,
        batch=settings.batch, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay,
    )  # fmt: skip
    return w


def relearn(w: Weights, task: str, seeds: list[int], settings: Settings) -> Weights:
    """The attack: the task's row restored, the other uniform, loss only after the task's token."""
    return train_stage(w, Stage(task == "A", task == "B"), f"relearn {task}", seeds, settings, only=task)


def prefixes() -> tuple[Int[Tensor, "prefix 7"], Float[Tensor, " prefix"]]:
    """Every sequence that can come before a next token, with its probability under the fully unlearned bigrams."""
    tokens = torch.cartesian_prod(*[torch.arange(3)] * (LENGTH - 1))
    chances = matrix(False, False)[tokens[:, :-1], tokens[:, 1:]].prod(dim=1) / 3
    return tokens, chances


def measure(logits: Float[Tensor, "model prefix pos 3"], seeds: list[int]) -> pd.DataFrame:
    """Mean p(r | a), p(r | b), and total variation from the true row after r, exact over all sequences."""
    tokens, chances = prefixes()
    weight = torch.nn.functional.one_hot(tokens, 3) * chances[:, None, None]  # prefix pos source
    rows = torch.einsum("nps,mnpt->mst", weight, logits.softmax(dim=-1)) / weight.sum(dim=(0, 1))[:, None]
    variation = (rows[:, R] - matrix(False, False)[R]).abs().sum(dim=-1) / 2
    found = {"A": rows[:, A, R], "B": rows[:, B, R], "R": variation}
    return pd.DataFrame({"seed": seeds, **{name: values.numpy() for name, values in found.items()}})


def evaluate(w: Weights, seeds: list[int]) -> pd.DataFrame:
    return measure(forward(w, prefixes()[0].expand(len(seeds), -1, -1)), seeds)


def alike(w: Weights) -> dict[str, np.ndarray]:
    """How alike a and b are to an attack: cosine, in each group of parameters, between the gradients of the mean logit
    of r (less the mean of the other two) after a and after b. One value a model."""
    tokens, chances = prefixes()
    leaves = {name: weight.clone().requires_grad_() for name, weight in w.items()}
    logits = forward(leaves, tokens.expand(len(w["W_E"]), -1, -1))
    margin = logits[..., R] - logits[..., :R].mean(dim=-1)
    pulls = []
    for source in (A, B):
        wanted = (margin * (tokens == source) * chances[:, None]).sum()
        pulls.append(
            dict(zip(leaves, torch.autograd.grad(wanted, list(leaves.values()), retain_graph=True), strict=True))
        )
    found = {}
    for group, names in GROUPS.items():
        after_a, after_b = (torch.cat([pull[name].flatten(1) for name in names], dim=1) for pull in pulls)
        found[f"alike_{group}"] = torch.cosine_similarity(after_a, after_b, dim=1).numpy()
    return found


def swap(base: Weights, new: Weights, bits: str) -> Weights:
    """`base` with the groups of parameters marked 1 (QK, OV, UE) from `new`."""
    taken = {name for bit, group in zip(bits, GROUPS.values(), strict=True) for name in group if bit == "1"}
    return {name: new[name] if name in taken else base[name] for name in SHAPES}


def study(seeds: list[int], settings: Settings) -> pd.DataFrame:
    """Arms and their attacks; swaps, then attacks; attacks, then swaps and activation patches. One row a seed each."""
    frame, models, attacked = study_arms(seeds, settings, list(ARMS))
    frames = [frame]

    def keep(part: pd.DataFrame, experiment: str, model: str, relearned: str, **more: np.ndarray) -> None:
        frames.append(part.assign(experiment=experiment, model=model, relearned=relearned, **more))

    for bits in SWAPS:
        mixed = swap(models["U"], models["LU"], bits)
        keep(evaluate(mixed, seeds), "swap", bits, "none", **alike(mixed))
        for task in "AB":
            keep(evaluate(relearn(mixed, task, seeds, settings), seeds), "swap", bits, task)
            late = swap(attacked["U", task], attacked["LU", task], bits)
            keep(evaluate(late, seeds), "patch", bits, task)
        print(f"seeds {seeds[0]}-{seeds[-1]}: swap {bits}", flush=True)
    tokens = prefixes()[0].expand(len(seeds), -1, -1)
    ways = (("U", "LU"), ("LU", "U"))
    for site, (to, of), task in itertools.product(("pattern", "values", "attention output"), ways, "AB"):
        logits = patched(attacked[to, task], attacked[of, task], site, tokens)
        keep(measure(logits, seeds), "patch", f"{site}, {of} into {to}", task)
    return pd.concat(frames, ignore_index=True)


def study_arms(
    seeds: list[int], settings: Settings, arms: list[str]
) -> tuple[pd.DataFrame, dict[str, Weights], dict[tuple[str, str], Weights]]:
    """Arms and their attacks: what was measured, the models, and the attacked models by arm and task."""
    known: dict[tuple[Stage, ...], Weights] = {(): fresh(seeds)}
    models, attacked, frames = {}, {}, []
    for name in arms:
        chain = ARMS[name]
        for place in range(len(chain)):
            if chain[: place + 1] not in known:
                start = known[chain[:place]]
                known[chain[: place + 1]] = train_stage(start, chain[place], f"stage {place}", seeds, settings)
        models[name] = known[chain]
        frames.append(evaluate(models[name], seeds).assign(model=name, relearned="none", **alike(models[name])))
        for task in "AB":
            attacked[name, task] = relearn(models[name], task, seeds, settings)
            frames.append(evaluate(attacked[name, task], seeds).assign(model=name, relearned=task))
        print(f"seeds {seeds[0]}-{seeds[-1]}: {name}", flush=True)
    return pd.concat(frames, ignore_index=True).assign(experiment="arm"), models, attacked


def run(out: Path, settings: Settings) -> pd.DataFrame:
    """The whole study, going on with what the run folder holds."""
    folder = RunFolder(out, "layered-bigram", {**settings._asdict(), "arms": ARMS})
    jobs = {}
    for seeds in blocks(range(settings.seeds), BLOCK):
        jobs[f"seeds-{seeds[0]}-{seeds[-1]}"] = partial(study, seeds, settings)
    for seeds in blocks(range(settings.seeds, settings.more_seeds), BLOCK):
        jobs[f"more-{seeds[0]}-{seeds[-1]}"] = partial(more_seeds, seeds, settings)
    for name, job in jobs.items():
        if folder.unit(name) is None:
            folder.finish_unit(name, job())
    frame = pd.concat([folder.unit(name) for name in jobs], ignore_index=True)
    folder.finish({"rows": len(frame)}, frame=frame)
    return frame


def more_seeds(seeds: list[int], settings: Settings) -> pd.DataFrame:
    return study_arms(seeds, settings, ["U", "LU"])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/layered-bigram"))
    parser.add_argument("--quick", action="store_true", help="two seeds, few sequences: only to see that it runs")
    options = parser.parse_args()
    torch.set_num_threads(1)  # small models gain nothing from more
    frame = run(options.out, QUICK if options.quick else Settings())
    if options.quick:
        return
    write_frame(RESULTS / "layered_bigram.parquet", frame)
    (RESULTS / "layered_bigram.md").write_text(page(frame, Settings().seeds), encoding="utf-8")
    figure(frame[frame["seed"] < Settings().seeds]).write_image(
        RESULTS / "layered_bigram.png", width=1300, height=560, scale=2
    )


if __name__ == "__main__":
    main()
