"""From rows of questions to one row an attack: what came back at worst, beside a model that never knew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ..checking import check_number, checked
from ..errors import UserError, check_whole
from ..evaluation import MEASURES, are_long, clusters_of, count_clusters, difference_interval, mean_interval
from ..frames import check_frame

OUTCOMES = {
    "correct": "recall",
    "probability": "answer_probability",
    "token_recall": "exact_memorisation",
}  # by the names that evaluation gives them
ANY = "any of these"
NEEDED: dict[str, Any] = {  # columns of the attacks' frame, and what they hold
    "attack": str, "setting": str | None, "part": str | None, "step": int, "model": str, "fact": str, "question": str,
    "role": str | None, "fold": int | None, "correct": float, "probability": float, "helped": bool, "broke": str | None,
}  # fmt: skip


def recovered(frame: pd.DataFrame, measure: str = "correct", *, by: str = "setting") -> pd.DataFrame:
    """What came back of every forget fact, at the worst step and at the last one.

    The worst step is the one with the highest mean over facts, chosen for every part (what the attacker was shown) and
    every model by itself: a maximum, which noise inflates for the never-knew model as well. A fact's values are
    averaged over its questions and over the parts that ask for it.

    Args:
        frame: the frame of `Attacks`.
        measure: "correct" (recall), "probability" (of an answer token) or "token_recall".
        by: "setting"; or "attack": the strongest setting of each attack, for either model its own (for the model before
            that of the model after), and at the end "any of these", the strongest of all that get no help (from the
            model before, or from the beginning of the answer). All settings are then compared on the same facts, those
            that any of them asks: one that a setting does not ask counts as the unattacked model has it.

    Returns:
        `attack, setting, model, fact, value` (worst step), `step` (the worst, mean over parts), `last`.

    Raises:
        UserError: unknown measure or `by`; `frame` is no frame of attacks.
    """
    frame = _check(frame, measure)
    if by not in ("setting", "attack"):
        raise UserError(f"summary by {by!r}: it is by setting or by attack")
    asked = frame[(frame["role"] == "forget") & (frame["attack"] != "none")]
    parts = []
    for keys, rows in asked.groupby(["attack", "setting", "model"], sort=False):
        worst, step = _worst(rows, measure)
        last = _by_fact(rows[rows["step"] == rows["step"].max()], measure)
        named = dict(zip(("attack", "setting", "model"), map(str, keys), strict=True))
        part = pd.DataFrame({"value": worst, "step": step, "last": last}).rename_axis("fact").reset_index()
        parts.append(part.assign(**named, helped=bool(rows["helped"].any())))
    found = pd.concat(parts, ignore_index=True)
    if by == "attack":
        free = found[~found["helped"]]
        free = free.assign(setting=free["attack"] + ": " + free["setting"], attack=ANY)
        plain = frame[(frame["role"] == "forget") & (frame["attack"] == "none")]
        unattacked = {model: _by_fact(rows, measure) for model, rows in plain.groupby("model")}
        found = _strongest(pd.concat([found, free], ignore_index=True), unattacked)
    return found[["attack", "setting", "model", "fact", "value", "step", "last"]].reset_index(drop=True)


@checked
def summarise_attacks(
    frame: pd.DataFrame,
    measure: str = "correct",
    *,
    by: str = "setting",
    cluster: str = "subject",
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row an attack (and setting): what came back of the forget facts, beside the anchors.

    Intervals take the step and the setting that were chosen as given. Those of recall are for shares (Wilson's; of the
    excess Newcombe's), those of a probability by the bootstrap. Other arguments and errors as `recovered`.

    Args:
        cluster: what intervals are over: a column that labels facts, or "fact" for each by itself.
        level, resamples, seed: of the intervals.

    Returns:
        `attack, setting, n` (facts), `n_clusters`; `start` (the model after, unattacked, on the same facts); `value,
        low, high` at the worst step; `step`; `last, last_low, last_high`; the twin's `never_knew, never_knew_low,
        never_knew_high` at its own worst; `excess, excess_low, excess_high` = value − never_knew, paired by fact; NaN
        where no twin was attacked. `before`: the model before under the same attack, where it was tried (prompts).
        `near`: what the attacked model still knows of near facts at the last step.
    """
    frame = _check(frame, measure)
    found = recovered(frame, measure, by=by)
    plain = frame[(frame["attack"] == "none") & (frame["model"] == "after") & (frame["role"] == "forget")]
    start = _by_fact(plain, measure)
    near = frame[(frame["role"] == "near") & (frame["model"] == "after")]
    near = near.groupby(["attack", "setting", "fact"])[measure].mean().groupby(["attack", "setting"]).mean()
    clusters = clusters_of(frame[frame["role"] == "forget"], cluster)
    check_whole("resamples", resamples, 1)
    check_whole("seed", seed, 0)
    options = {"share": _is_share(measure), "level": level, "resamples": resamples, "seed": seed}
    keys = ["attack"] if by == "attack" else ["attack", "setting"]
    return pd.DataFrame([_row(rows, start, near, clusters, options) for _, rows in found.groupby(keys, sort=False)])


@checked
def curve(frame: pd.DataFrame, measure: str = "correct", *, cluster: str = "subject", seed: int = 0) -> pd.DataFrame:
    """Recall step by step of the attacks that go in steps.

    Returns:
        `attack, setting, model, step, value, low, high, n, n_clusters`; intervals as in `summarise_attacks`.

    Raises:
        UserError: unknown measure; `frame` is no frame of attacks; as `clusters_of`.
    """
    frame = _check(frame, measure)
    forget = frame[(frame["role"] == "forget") & (frame["attack"] != "none")]
    keys = ["attack", "setting", "model", "step"]
    stepped = forget[forget.groupby(keys[:2])["step"].transform("max") > 0]
    clusters = clusters_of(forget, cluster)
    rows = []
    for key, part in stepped.groupby(keys, sort=False):
        values = _by_fact(part, measure)
        labels = clusters.loc[values.index].to_numpy()
        edges = mean_interval(values, labels, share=_is_share(measure), seed=seed)
        rows.append([*key, values.mean(), *edges, len(values), count_clusters(labels)])
    return pd.DataFrame(rows, columns=[*keys, "value", "low", "high", "n", "n_clusters"])


@checked
def steps_to_recover(frame: pd.DataFrame, level: float = 0.5, measure: str = "correct") -> pd.DataFrame:
    """The first step whose mean is at `level` or above (NaN: none): `attack, setting, model, step`."""
    check_number("level", level, least=0, most=1)
    found = curve(frame, measure)
    keys = ["attack", "setting", "model"]
    reached = found[found["value"] >= level].groupby(keys, sort=False)["step"].min()
    return found[keys].drop_duplicates().merge(reached.reset_index(), how="left", on=keys)


def deciding(frame: pd.DataFrame) -> str:
    """The measure that says what came back: recall, or, of long answers, the probability of an answer token."""
    asked = frame[(frame["role"] == "forget") & ~frame["helped"]]
    return "probability" if "tokens" in frame and are_long(asked["tokens"]) else "correct"


def _by_fact(rows: pd.DataFrame, measure: str) -> pd.Series:
    return rows.groupby("fact", sort=True)[measure].mean()


def _worst(rows: pd.DataFrame, measure: str) -> tuple[pd.Series, float]:
    """Each fact's value at the worst step of each part, and the mean of these steps."""
    means = rows.groupby(["part", "step", "fact"])[measure].mean().groupby(["part", "step"]).mean()
    steps = means.groupby("part").idxmax()  # the first step, where several are equal
    chosen = rows.set_index(["part", "step"]).sort_index().loc[steps.tolist()]
    return _by_fact(chosen.reset_index(), measure), float(np.mean([step for _, step in steps]))


def _strongest(found: pd.DataFrame, unattacked: dict[str, pd.Series]) -> pd.DataFrame:
    """For every attack and model the setting with the highest mean over all facts that the attack asks."""
    parts = []
    for attack, rows in found.groupby("attack", sort=False):
        facts = pd.Index(sorted(rows["fact"].unique()), name="fact")
        best: dict[str, str] = {}
        for model in sorted(rows["model"].unique()):  # "after" comes before "before", which follows it
            own = rows[rows["model"] == model]
            plain = unattacked.get(model, pd.Series(dtype=float)).reindex(facts)
            values = own.pivot(index="fact", columns="setting", values="value").reindex(facts)
            values = values.apply(lambda column, plain=plain: column.fillna(plain))[own["setting"].unique()]
            best[model] = best["after"] if model == "before" else str(values.mean().idxmax())
            chosen = own[own["setting"] == best[model]].set_index("fact")
            if len(chosen):
                part = pd.DataFrame({"value": values[best[model]], "last": chosen["last"].reindex(facts).fillna(plain)})
                named = {"attack": attack, "setting": best[model], "model": model, "step": chosen["step"].iloc[0]}
                parts.append(part.dropna(subset="value").assign(**named).reset_index())
    return pd.concat(parts, ignore_index=True)


def _check(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Raises UserError: no such measure; not a frame of attacks, or one in which nothing was attacked."""
    if measure not in OUTCOMES:
        raise UserError(f"no measure {measure!r}; measures are {', '.join(OUTCOMES)}")
    frame = check_frame("the frame of attacks", frame, NEEDED | {measure: float})
    if not ((frame["model"] == "after") & (frame["role"] == "forget") & (frame["attack"] != "none")).any():
        raise UserError("the frame of attacks has no row of a forget fact under an attack: there is nothing to tell")
    texts = {name: frame[name].astype(object) for name in ("setting", "part", "broke")}
    return frame.assign(**{name: text.where(text.notna(), "") for name, text in texts.items()})  # as CSV keeps no ""


def _is_share(measure: str) -> bool:
    return MEASURES[OUTCOMES[measure]].share


def _row(
    rows: pd.DataFrame, start: pd.Series, near: pd.Series, clusters: pd.Series, options: dict[str, Any]
) -> dict[str, Any]:
    after, twin, before = (
        rows[rows["model"] == model].set_index("fact") for model in ("after", "never-knew", "before")
    )
    attack, setting = after["attack"].iloc[0], after["setting"].iloc[0]
    key = tuple(setting.split(": ", 1)) if attack == ANY else (attack, setting)
    row = {"attack": attack, "setting": setting, "n": len(after), "n_clusters": count_clusters(clusters[after.index])}
    row |= {"start": float(start.reindex(after.index).mean())}
    row |= _interval("value", after["value"], clusters, options) | {"step": after["step"].iloc[0]}
    row |= _interval("last", after["last"].dropna(), clusters, options)
    row |= _interval("never_knew", twin["value"], clusters, options)
    row |= _excess(after["value"], twin["value"], clusters, options)
    same = before[before["setting"] == setting]["value"]
    return row | {"before": same.mean(), "near": float(near[key]) if key in near.index else np.nan}


def _interval(name: str, values: pd.Series, clusters: pd.Series, options: dict[str, Any]) -> dict[str, float]:
    names = (name, "low", "high") if name == "value" else (name, f"{name}_low", f"{name}_high")
    if not len(values):
        return dict.fromkeys(names, np.nan)
    edges = mean_interval(values, clusters[values.index], **options)
    return dict(zip(names, (float(values.mean()), *edges), strict=True))


def _excess(after: pd.Series, twin: pd.Series, clusters: pd.Series, options: dict[str, Any]) -> dict[str, float]:
    names = ("excess", "excess_low", "excess_high")
    both = after.index.intersection(twin.index)
    if not len(both):
        return dict.fromkeys(names, np.nan)
    edges = difference_interval(twin[both], after[both], clusters[both], **options)
    return dict(zip(names, (float((after[both] - twin[both]).mean()), *edges), strict=True))
