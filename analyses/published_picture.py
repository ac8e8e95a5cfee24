"""Does the published picture of fine-tuning unlearning (arXiv 2410.06606) hold on the organism?

    python analyses/published_picture.py [--out runs/published-picture] [--seeds 3] [--forget entities] [--quick]

Unlearns with gradient difference, NPO and DPO, several seeds each, and dissects every model with the paper's four arms
in the paper's windows. Every model and frame is kept in the run folder, so the script goes on where it was stopped.
Writes analyses/results/published_picture_entities.md with its picture and frame; `dissect_finetuning.py` has the forget
set `domain`, and more sites.
"""  # fmt: skip

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import plotly.express as px
from plotly.graph_objects import Figure
from studies import RESULTS, over_seeds

import mechunlearn as mu
from mechunlearn.dissection.plotting.styles import site_words, style

SITES = ("mlp_coefficients", "attention_output", "mlp_coefficients+attention_output", "value_vectors")
METHODS = {"gradient difference": mu.GradientDifference(), "NPO": mu.NPO(), "DPO": mu.DPO()}
WINDOWS = "sliding:5,all"
STEPS, LEARNING_RATE = 100, 4e-4
CLAIMS = {
    "value vectors: largest absolute KRS over windows (published: about 0; asked: ≤ 0.1)": (
        "value_vectors",
        "widest",
        0.1,
    ),
    "coefficients: best window centred in the upper half (published: high in late layers; asked: ≥ 0.6)": (
        "mlp_coefficients",
        "late",
        0.6,
    ),
    "coefficients with attention: peak (published: above 0.9; asked: ≥ 0.85)": (SITES[2], "peak", 0.85),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/published-picture"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--forget", choices=("domain", "entities"), default="entities")
    parser.add_argument("--quick", action="store_true", help="one seed, few facts, few steps: only to see that it runs")
    options = parser.parse_args()
    before = mu.load("organism")
    facts = mu.Facts.builtin("organism", forget=options.forget)
    text = mu.organism_text()[: 20 if options.quick else None]
    scores, trainings = [], []
    for name, method in METHODS.items():
        for seed in range(1 if options.quick else options.seeds):
            folder = options.out / options.forget / f"{method.name}-{seed}"
            forget = facts.forget[:32] if options.quick else facts.forget
            steps = 4 if options.quick else STEPS
            run = mu.unlearn(
                before, method, forget, facts.retain, text=text, retain_text=mu.organism_text("train"),
                steps=steps, learning_rate=LEARNING_RATE, evaluate_every=50, seed=seed, run=folder,
            )  # fmt: skip
            result = mu.dissect(
                before,
                run.model,
                forget,
                sites=SITES,
                windows=WINDOWS,
                prompts="own",
                seed=seed,
                run=folder / "dissection",
            )
            summary = result.summary().query("metric == 'mse'").assign(method=name, seed=seed)
            scores.append(summary)
            change = result.frame.groupby("metric", observed=True)["baseline"].mean()
            last = run.frame.tail(1).assign(
                method=name, seed=seed, mse_of_change=change["mse"], kl_of_change=change["kl"]
            )
            trainings.append(last)
            print(f"{name}, seed {seed}: done")
    if not options.quick:
        write(pd.concat(scores), pd.concat(trainings), options.forget, before.cfg.n_layers)


def write(scores: pd.DataFrame, trainings: pd.DataFrame, forget: str, n_layers: int) -> None:
    """The page, its picture and its frame."""
    stem = f"published_picture_{forget}"
    scores.to_parquet(RESULTS / f"{stem}.parquet", index=False)
    picture(scores, n_layers).write_image(RESULTS / f"{stem}.png", width=1100, height=420, scale=2)
    claims = pd.concat([claim(scores, n_layers, *CLAIMS[words]).assign(claim=words) for words in CLAIMS])
    columns = ["forget_recall", "forget_probability", "near_recall", "far_recall", "text_loss", "text_kl"]
    cost = trainings.groupby("method", sort=False)[[*columns, "mse_of_change", "kl_of_change"]].mean().round(3)
    lines = [
        f"# The published picture, forget set `{forget}`",
        "",
        f"Knowledge Recovery Score (mean over facts, windows `sliding(5)` of {n_layers} layers), before → after, on",
        "the facts of the forget set in phrasings that training showed. Mean over three seeds [smallest, largest].",
        "",
        f"![Recovery by window]({stem}.png)",
        "",
        "## Claims",
        "",
        claims.pivot(index="claim", columns="method", values="text").to_markdown(),
        "",
        "## What unlearning did and cost (last evaluation, mean over seeds)",
        "",
        "Recall and probability on held-out phrasings; text: loss and token KL to the start, nats; change: mean",
        "distance between the model before and after on the forget facts, the denominator of every recovery.",
        "",
        cost.to_markdown(),
        "",
        f"Made by `python analyses/published_picture.py --forget {forget}`; frame: [{stem}.parquet]({stem}.parquet).",
        "",
    ]
    (RESULTS / f"{stem}.md").write_text("\n".join(lines), encoding="utf-8")


def claim(scores: pd.DataFrame, n_layers: int, site: str, what: str, asked: float) -> pd.DataFrame:
    """One figure a method and seed, then its mean over seeds with an interval, and whether it is as asked."""
    rows = scores[(scores["site"] == site) & ~((scores["first_layer"] == 0) & (scores["last_layer"] == n_layers - 1))]
    if what == "late":
        rows = rows[rows["centre"] >= n_layers / 2]
    score = rows["mean_of_ratios"].abs() if what == "widest" else rows["mean_of_ratios"]
    best = rows.assign(score=score).groupby(["method", "seed"], sort=False)["score"].max()
    found = []
    for method, values in best.groupby("method", sort=False):
        holds = values.max() <= asked if what == "widest" else values.min() >= asked
        mark = "yes, every seed" if holds else f"{_kept(values, asked, what)} of {len(values)} seeds"
        found.append({"method": method, "text": f"{over_seeds(values)} ({mark})"})
    return pd.DataFrame(found)


def _kept(values: pd.Series, asked: float, what: str) -> int:
    return int((values <= asked).sum() if what == "widest" else (values >= asked).sum())


def picture(scores: pd.DataFrame, n_layers: int) -> Figure:
    """One panel a method, one line a site, mean over seeds with their range."""
    rows = scores[~((scores["first_layer"] == 0) & (scores["last_layer"] == n_layers - 1))].copy()
    rows["window"] = rows["first_layer"].astype(str) + "–" + rows["last_layer"].astype(str)
    rows["site"] = rows["site"].astype(str).map(site_words)
    over = rows.groupby(["method", "site", "window", "centre"], sort=False)["mean_of_ratios"]
    line = over.agg(["mean", "min", "max"]).reset_index().sort_values("centre")
    line["up"], line["down"] = line["max"] - line["mean"], line["mean"] - line["min"]
    figure = px.line(
        line, x="window", y="mean", color="site", facet_col="method", error_y="up", error_y_minus="down", markers=True,
        labels={"mean": "recovery (0 = after, 1 = before)", "window": "layers patched"}, template="plotly_white",
        category_orders={"site": [site_words(site) for site in SITES], "method": list(METHODS)},
        color_discrete_map={site_words(site): style(site)[0] for site in SITES},
    )  # fmt: skip
    figure.add_hline(y=0, line_dash="dot", line_color="grey").add_hline(y=1, line_dash="dot", line_color="grey")
    figure.for_each_annotation(lambda note: note.update(text=note.text.removeprefix("method=")))
    return figure.update_layout(legend_title_text="", legend_orientation="h", legend_y=-0.25)


if __name__ == "__main__":
    main()
