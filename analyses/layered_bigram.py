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
from layered import ARMS, Cell, Stage, blocks, compare, controls, figure_of, generator, picture, returned, train
from plotly.graph_objects import Figure
from torch import Tensor
from torch.nn.functional import cross_entropy

from mechunlearn.evaluation import bootstrap_interval
from mechunlearn.runs import RunFolder, write_frame

RESULTS = Path(__file__).parent / "results"
A, B, R = range(3)
EPSILON = 0.05
WIDTH, HEADS, LENGTH = 32, 2, 8
SHAPES = {"W_E": (3, WIDTH), **{f"W_{one}": (WIDTH, WIDTH) for one in "QKVO"}, "W_U": (WIDTH, 3)}
GROUPS = {"QK": ("W_Q", "W_K"), "OV": ("W_V", "W_O"), "UE": ("W_E", "W_U")}
SWAPS = ["".join(bits) for bits in itertools.product("01", repeat=3)]  # QK, OV, UE: 1 is taken from LU
BLOCK = 12  # seeds trained side by side

# arXiv 2505.09500, Tables 2, 4 and 5: means of ten seeds. Standard deviations: from the authors' figures by seed.
TABLE_2 = [
    Cell("original", "none", "A", 0.91, 0.007), Cell("original", "none", "B", 0.91, 0.011),
    Cell("original", "none", "R", 0.02, 0.009), Cell("U", "none", "A", 0.33, 0.008),
    Cell("U", "none", "B", 0.34, 0.008), Cell("U", "none", "R", 0.01, 0.011), Cell("LU", "none", "A", 0.34, 0.011),
    Cell("LU", "none", "B", 0.33, 0.010), Cell("LU", "none", "R", 0.02, 0.011), Cell("U", "A", "B", 0.78, 0.074),
    Cell("U", "A", "R", 0.06, 0.033),
    Cell("LU", "A", "B", 0.53, 0.087), Cell("LU", "A", "R", 0.04, 0.020), Cell("U", "B", "A", 0.76, 0.075),
    Cell("U", "B", "R", 0.05, 0.021), Cell("LU", "B", "A", 0.51, 0.087), Cell("LU", "B", "R", 0.04, 0.018),
]  # fmt: skip
ALL_ELEVEN = [
    Cell("U", "A", "B", 0.732, 0.183), Cell("U", "B", "A", 0.697, 0.176),
    Cell("LU", "A", "B", 0.501, 0.128), Cell("LU", "B", "A", 0.476, 0.136),
]  # fmt: skip
SWAPPED = {  # A and B before; B after relearning A, A after relearning B
    "000": ((0.33, 0.008), (0.33, 0.008), (0.78, 0.074), (0.75, 0.075)),
    "001": ((0.36, 0.022), (0.39, 0.027), (0.83, 0.072), (0.73, 0.074)),
    "010": ((0.31, 0.017), (0.30, 0.018), (0.75, 0.083), (0.68, 0.105)),
    "011": ((0.32, 0.015), (0.34, 0.008), (0.77, 0.094), (0.65, 0.073)),
    "100": ((0.33, 0.012), (0.33, 0.012), (0.66, 0.066), (0.61, 0.101)),
    "101": ((0.36, 0.032), (0.39, 0.028), (0.70, 0.061), (0.58, 0.099)),
    "110": ((0.32, 0.020), (0.30, 0.022), (0.55, 0.079), (0.52, 0.078)),
    "111": ((0.34, 0.011), (0.33, 0.010), (0.53, 0.087), (0.51, 0.087)),
}

INTRODUCTION = READING = CONTROLS = COMPONENTS = ALIKE = ALL_SEEDS = TABLES_4_5 = ENDING = ""

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


def page(frame: pd.DataFrame) -> str:
    """The result in words and tables."""
    first = frame[frame["seed"] < Settings().seeds]
    arms, swaps = first[first["experiment"] == "arm"], first[first["experiment"] == "swap"]
    lines = [
        INTRODUCTION, beside(arms, TABLE_2).to_markdown(index=False, disable_numparse=True), "",
        ALL_SEEDS, seeds_table(frame).to_markdown(index=False, disable_numparse=True), "",
        TABLES_4_5, beside(swaps, swap_cells()).to_markdown(index=False, disable_numparse=True), "",
        READING, "## Controls", "", CONTROLS, controls(arms).to_markdown(index=False), "",
        "## Where the protection sits", "", COMPONENTS, components(first).to_markdown(index=False), "",
        "## How alike a and b are to an attack", "", ALIKE, likeness(frame).to_markdown(index=False), "", ENDING,
    ]  # fmt: skip
    return "\n".join(lines)


def swap_cells() -> list[Cell]:
    places = (("none", "A"), ("none", "B"), ("A", "B"), ("B", "A"))
    return [Cell(bits, *place, *cell) for bits, row in SWAPPED.items() for place, cell in zip(places, row, strict=True)]


def beside(frame: pd.DataFrame, cells: list[Cell]) -> pd.DataFrame:
    """The comparison, all seeds, with the one the authors left out beside it."""
    table = compare(frame, cells).rename(columns={"here": "here, seeds 0-10"})
    table.insert(5, "here without seed 1", compare(frame[frame["seed"] != 1], cells)["here"])
    return table


def seeds_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The published figures of all eleven seeds, ours of the same number, and ours of many more."""
    arms = frame[frame["experiment"] == "arm"]
    table = compare(arms[arms["seed"] < Settings().seeds], ALL_ELEVEN).rename(columns={"here": "here, seeds 0-10"})
    many = compare(arms, ALL_ELEVEN)["here"]
    table.insert(5, f"here, {arms['seed'].nunique()} seeds", many)
    return table


def back(frame: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """What an attack brings back of the other task, mean of both attacks: [model, seed]."""
    values = returned(frame[frame["experiment"] == experiment])
    return values.pivot_table(index="model", columns="seed", values="value", sort=False)


def components(frame: pd.DataFrame) -> pd.DataFrame:
    """Parts of LU put into U, before and after the attack, and how far each goes from U (0) to LU (1)."""
    rows = []
    for experiment, when in (("swap", "swapped, then attacked"), ("patch", "attacked, then patched")):
        values = back(frame, experiment)
        for model, found in values.iterrows():
            whole = values.loc["000"] - values.loc["111"]
            low, high = bootstrap_interval(values.loc["000"] - found, whole)
            share = (values.loc["000"] - found).mean() / whole.mean()
            rows.append([when, model, figure_of(found), f"{share:.2f} [{low:.2f}, {high:.2f}]"])
    return pd.DataFrame(rows, columns=["when", "from LU", "other task's p(r), both attacks", "share of the way to LU"])


def likeness(frame: pd.DataFrame) -> pd.DataFrame:
    """Cosines before the attack, what came back after it, and their correlation over the seeds of a model."""
    rows = []
    for experiment in ("arm", "swap"):
        part = frame[frame["experiment"] == experiment]
        values = back(part, experiment)
        before = part[part["relearned"] == "none"].set_index(["model", "seed"])
        for model in values.index:
            found, cosines = values.loc[model].dropna(), before.xs(model, level="model")
            row = {"model": model, "seeds": len(found), "other task's p(r) after an attack": found.mean()}
            row |= {f"cosine in {group}": cosines[f"alike_{group}"].mean() for group in GROUPS}
            row["correlation with OV over seeds"] = np.corrcoef(found, cosines.loc[found.index, "alike_OV"])[0, 1]
            rows.append(row)
    return pd.DataFrame(rows).round(2)


def figure(frame: pd.DataFrame) -> Figure:
    """Arms by attack; parts of LU by when they are put into U."""
    arms = returned(frame[frame["experiment"] == "arm"]).assign(panel="models, attacked")
    late = []
    for experiment, when in (("swap", "swapped, then attacked"), ("patch", "attacked, then patched")):
        values = back(frame, experiment).reindex(SWAPS).rename_axis("model").reset_index().melt("model")
        late.append(values.assign(task=when, panel="parts of LU (QK, OV, embeddings) in U, both attacks"))
    late = pd.concat(late)
    names = {bits: "+".join(g for g, bit in zip(GROUPS, bits, strict=True) if bit == "1") for bits in SWAPS}
    late["model"] = late["model"].replace(names | {"000": "none (U)", "111": "all (LU)"})
    return picture(pd.concat([arms, late]), "p(r) after the other task's token", 0.12)


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
    (RESULTS / "layered_bigram.md").write_text(page(frame), encoding="utf-8")
    first = frame[frame["seed"] < Settings().seeds]
    figure(first).write_image(RESULTS / "layered_bigram.png", width=1300, height=560, scale=2)


if __name__ == "__main__":
    main()
