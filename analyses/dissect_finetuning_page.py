"""The page of `dissect_finetuning.py`."""

from __future__ import annotations

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from studies import RESULTS, Tables, over_seeds

from mechunlearn.dissection.plotting.styles import site_words, style

METHODS = {"gradient_difference": "gradient difference", "npo": "NPO", "dpo": "DPO", "rmu": "RMU"}
PAPER = ("mlp_coefficients", "attention_output", "mlp_coefficients+attention_output", "value_vectors")
PARAMETERS = ("value_vectors", "mlp_keys", "attention_qk", "attention_ov", "block", "embedding", "unembedding")
LAYERS = 6


def write(tables: Tables, missing: int) -> None:
    """`dissect_finetuning.md` and its pictures."""
    recovery = tables["recovery"].query("metric == 'mse'").astype({"site": str})
    _curves(recovery, PAPER).write_image(RESULTS / "dissect_finetuning_states.png", width=1200, height=380, scale=2)
    _curves(recovery, PARAMETERS[:5]).write_image(
        RESULTS / "dissect_finetuning_parameters.png", width=1200, height=380, scale=2
    )
    _course(tables["training"]).write_image(RESULTS / "dissect_finetuning_course.png", width=1200, height=380, scale=2)
    parts = [INTRODUCTION]
    if missing:
        parts.append(f"**In progress**, runs still to come: {missing}.\n")
    parts += ["## The paper's claims\n", _claims(recovery)]
    parts += ["\n![Recovery by window, the paper's arms](dissect_finetuning_states.png)\n"]
    parts += ["## The parameter sites that the paper lacks\n", WHOLE, _whole(recovery)]
    parts += ["\n![Recovery by window, parameters](dissect_finetuning_parameters.png)\n"]
    parts += ["## The behaviour test\n", BEHAVIOUR, _behaviour(tables["behaviour"])]
    parts += ["\n![Recall as training goes on](dissect_finetuning_course.png)\n"]
    parts += [
        "## Does what restores most also move most in relearning?\n",
        RELEARNING,
        _relearning(recovery, tables["relearning"]),
    ]
    parts += ["\n## Controls\n", _controls(tables["controls"]), READING, FOOT]
    (RESULTS / "dissect_finetuning.md").write_text("\n".join(parts), encoding="utf-8")


def _family(recovery: pd.DataFrame, family: str) -> pd.DataFrame:
    """Rows of one family of windows; windows of a width share it. All layers at once are "all"."""
    width = recovery["last_layer"] - recovery["first_layer"] + 1
    everything = (recovery["first_layer"] <= 0) & (width >= LAYERS) | (recovery["first_layer"] < 0)
    if family == "all":
        return recovery[everything]
    if family == "single":
        return recovery[~everything & (recovery["first_layer"] == recovery["last_layer"])]
    # Of the sliding windows those at the ends are cut short; one of a single layer is not among them here.
    return recovery[~everything & (width > 1)]


def _claims(recovery: pd.DataFrame) -> str:
    sliding = _family(recovery, "sliding")
    upper = sliding[sliding["first_layer"] >= LAYERS / 2]
    claims = {
        "value vectors, largest absolute recovery (published: about 0)": (
            sliding[sliding["site"] == "value_vectors"].assign(score=lambda rows: rows["mean_of_ratios"].abs())
        ),
        "coefficients, best window (published: high, in late layers)": (
            sliding[sliding["site"] == "mlp_coefficients"].assign(score=lambda rows: rows["mean_of_ratios"])
        ),
        "coefficients, upper half alone (layers 3–5)": (
            upper[upper["site"] == "mlp_coefficients"].assign(score=lambda rows: rows["mean_of_ratios"])
        ),
        "attention, best window": (
            sliding[sliding["site"] == "attention_output"].assign(score=lambda rows: rows["mean_of_ratios"])
        ),
        "coefficients with attention, peak (published: above 0.9)": (
            sliding[sliding["site"] == PAPER[2]].assign(score=lambda rows: rows["mean_of_ratios"])
        ),
    }
    rows = []
    for claim, chosen in claims.items():
        best = chosen.groupby(["method", "seed"])["score"].max()
        rows.append({"": claim} | {METHODS[name]: over_seeds(best[name]) for name in METHODS if name in best})
    return pd.DataFrame(rows).to_markdown(index=False)


def _whole(recovery: pd.DataFrame) -> str:
    """All layers at once, and the embeddings."""
    chosen = _family(recovery, "all")
    rows = []
    for site in dict.fromkeys([*PAPER[:3], *PARAMETERS]):
        part = chosen[chosen["site"] == site].set_index("method")["mean_of_ratios"]
        rows.append(
            {"site": f"`{site}`"} | {METHODS[name]: over_seeds(part[[name]]) for name in METHODS if name in part}
        )
    return pd.DataFrame(rows).to_markdown(index=False)


def _behaviour(behaviour: pd.DataFrame) -> str:
    shown = behaviour[~behaviour["measure"].isin(["answer_logprob"])]
    keys = ["role", "measure"]
    table = shown.groupby([*keys, "method"], sort=False)["value"].apply(lambda values: over_seeds(values, 3)).unstack()
    table = table.loc[list(dict.fromkeys(zip(shown["role"], shown["measure"], strict=True)))]
    return (
        table[[name for name in METHODS if name in table]]
        .rename(columns=METHODS)
        .reset_index()
        .to_markdown(index=False)
    )


def _relearning(recovery: pd.DataFrame, relearning: pd.DataFrame) -> str:
    """Over layers: rank correlation of a layer's recovery with how far relearning moves it beyond the twin's."""
    rows = []
    single, twin = _family(recovery, "single"), relearning[relearning["method"] == "never_knew"]
    for name, title in (METHODS | {"never_knew": "the twin that never knew"}).items():
        mine = relearning[relearning["method"] == name]
        if mine.empty:
            continue
        row = {"method": title}
        recalls = mine.drop_duplicates("seed")
        row["recall of fold 3, before"] = over_seeds(recalls["recall_start"])
        row["after"] = over_seeds(recalls["recall_end"])
        moved = mine[mine["layer"] >= 0].groupby(["seed", "layer"])["relative_change"].mean().unstack()
        row["layer that moves most"] = ", ".join(map(str, moved.idxmax(axis=1)))
        row["by (relative change)"] = over_seeds(moved.max(axis=1), 3)
        rows.append(row)
        if name not in METHODS:
            continue
        best = single[(single["method"] == name) & (single["site"] == "mlp_coefficients")]
        best = best.pivot_table(index="seed", columns="first_layer", values="mean_of_ratios")
        row["layer that restores most"] = ", ".join(map(str, best.idxmax(axis=1)))
        for site, role in (
            ("mlp_coefficients", "mlp_keys"),
            ("mlp_coefficients", "value_vectors"),
            ("attention_output", "attention_ov"),
        ):
            row[f"`{site}` × movement of {role}"] = over_seeds(_ranks(single[single["site"] == site], mine, twin, role))
    return pd.DataFrame(rows).fillna("").to_markdown(index=False)


def _ranks(single: pd.DataFrame, mine: pd.DataFrame, twin: pd.DataFrame, role: str) -> list[float]:
    found = []
    for seed in sorted(mine["seed"].unique()):
        restored = single[(single["method"] == mine["method"].iloc[0]) & (single["seed"] == seed)]
        restored = restored.set_index("first_layer")["mean_of_ratios"]
        changes = [
            rows[(rows["seed"] == seed) & (rows["role"] == role)].set_index("layer")["relative_change"]
            for rows in (mine, twin)
        ]
        found.append(restored.corr((changes[0] - changes[1]).reindex(restored.index), method="spearman"))
    return found


def _controls(controls: pd.DataFrame) -> str:
    judged = controls[controls["passed"].notna()]
    return f"{int(judged['passed'].astype(bool).sum())} of {len(judged)} controls with a known result passed.\n"


def _curves(recovery: pd.DataFrame, sites: tuple[str, ...]) -> go.Figure:
    rows = _family(recovery, "sliding")
    rows = rows[rows["site"].isin(sites)].copy()
    rows["window"] = rows["first_layer"].astype(str) + "–" + rows["last_layer"].astype(str)
    rows["method"] = rows["method"].map(METHODS)
    rows["site"] = rows["site"].map(site_words)
    over = rows.groupby(["method", "site", "window", "centre"], sort=False)["mean_of_ratios"]
    line = over.agg(["mean", "min", "max"]).reset_index().sort_values("centre")
    line["up"], line["down"] = line["max"] - line["mean"], line["mean"] - line["min"]
    figure = px.line(
        line, x="window", y="mean", color="site", facet_col="method", error_y="up", error_y_minus="down", markers=True,
        labels={"mean": "recovery (0 = after, 1 = before)", "window": "layers"}, template="plotly_white",
        category_orders={"site": [site_words(site) for site in sites], "method": list(METHODS.values())},
        color_discrete_map={site_words(site): style(site)[0] for site in sites},
    )  # fmt: skip
    figure.add_hline(y=0, line_dash="dot", line_color="grey").add_hline(y=1, line_dash="dot", line_color="grey")
    figure.for_each_annotation(lambda note: note.update(text=note.text.removeprefix("method=")))
    return figure.update_layout(legend_title_text="", legend_orientation="h", legend_y=-0.25)


def _course(training: pd.DataFrame) -> go.Figure:
    """Recall by role as training goes on: mean over seeds, and their range."""
    long = training.melt(["method", "seed", "step"], ["forget_recall", "near_recall", "far_recall"], "role", "recall")
    long["role"] = long["role"].str.removesuffix("_recall")
    long["method"] = long["method"].map(METHODS)
    line = long.groupby(["method", "role", "step"], sort=False)["recall"].agg(["mean", "min", "max"]).reset_index()
    line["up"], line["down"] = line["max"] - line["mean"], line["mean"] - line["min"]
    figure = px.line(
        line, x="step", y="mean", color="role", facet_col="method", error_y="up", error_y_minus="down", markers=True,
        labels={"mean": "recall, phrasings held out"}, template="plotly_white",
        category_orders={"method": list(METHODS.values())},
    )  # fmt: skip
    figure.for_each_annotation(lambda note: note.update(text=note.text.removeprefix("method=")))
    return figure.update_layout(legend_title_text="", legend_orientation="h", legend_y=-0.25)


INTRODUCTION = """# Where fine-tuning unlearning acts

arXiv 2410.06606 patches activations of the model before into the model after unlearning, and restores its value
vectors. Here four methods unlearn the organism's domain (100 steps, no budget: as in the paper, forgetting is what
counts). Recovery is the paper's score (1 − MSE of patched to before / MSE of after to before; mean over facts), before
→ after, windows of five layers of six. Mean over three seeds [smallest, largest]; bars in pictures: the same.
"""
WHOLE = """All layers at once (embeddings: the one there is). Restoring a parameter site in every layer is the control
that the paper does not have: it tells how much of the change lies in those weights together.
"""
BEHAVIOUR = """Every eighth forget and near, every sixteenth far fact, in phrasings never trained. ROUGE-L and BLEU are
of what the model writes against what the model before wrote (1: unchanged; answers are short, and a full stop that both
have is enough for some BLEU).
"""
RELEARNING = """Relearning: four epochs of AdamW on half the facts of folds 0–2, all blocks trained; then fold 3 is
asked. Rank correlation over the six layers between recovery from that layer alone and how much further relearning
moves its weights (relative change) than it moves the twin's.
"""
READING = """## Reading

- **The paper's picture holds for gradient difference and NPO**: restored value vectors undo nearly nothing of the
  squared difference of the logits (0.06 in any window and seed), coefficients 0.83 and 0.86 in their best window,
  with attention 0.94. These are shares of a distance; how many answers are right under each patch was not recorded
  here. And the best windows hold five of six layers; the upper half alone undoes 0.58 and 0.70, so that in a model as
  shallow as this "late" says little. DPO, which changes predictions least, falls short (0.58, with attention 0.84).
- **It is not evidence that the value vectors were spared.** No parameter site alone undoes much of the distance (keys
  0.14 to 0.21, attention's value and output 0.04 to 0.21, all layers at once), all of a block's weights together 0.93
  to 0.98: the change is spread, and a part of it undone is not a part of the knowledge back.
- **RMU is the counter-example.** It trains value vectors of blocks 0 to 2 alone, so restoring them gives 1.00; and
  patching coefficients of blocks 3 to 5, in which no weight has changed, still gives 0.64, about as much as for the
  other methods. High recovery from coefficients says that what lies above can use them, not that they are what
  unlearning changed.
- **Behaviour**: near and far recall stays at 93 % or more in every run, yet what NPO and DPO write about these facts
  changes (ROUGE-L 0.6 to 0.8 against the model before): recall alone hides a cost.
- **What restores most does not tell what moves most in relearning, nor does anything else here.** Relearning moves
  block 1 most, in every run and as far (0.05) in the twin that has nothing to recover: that is what fine-tuning does.
  How much further a layer moves than in the twin is uncorrelated, or weakly and in either direction, with how much it
  restores (−0.4 to 0.5 in the mean, six layers); the one firm figure, −0.77 for RMU's value vectors, says that the
  blocks that it changed are moved back least.
- **What relearning brings back is not what patching ranks.** After relearning half of three folds, RMU gives back
  0.94 of the fourth, NPO 0.49 and gradient difference 0.41, DPO 0.11; the twin, trained alike, reaches 0.06.
  Coefficients and attention, patched, undo 0.84 or more of the distance in all four: what a patch can undo, an attack
  need not find.
"""
FOOT = """
Made by `python analyses/dissect_finetuning.py`; frames: [recovery](dissect_finetuning_recovery.parquet),
[behaviour](dissect_finetuning_behaviour.parquet), [training](dissect_finetuning_training.parquet),
[relearning](dissect_finetuning_relearning.parquet), [controls](dissect_finetuning_controls.parquet).
"""
