"""Where each site of a dissection recovers most, and how that reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from .metrics import PAPER_METRIC

MOST = 0.5  # of the layers: a window that holds more replaces most of the model, and points nowhere
NOTHING, PART, MUCH, NEARLY_ALL = 0.1, 0.3, 0.6, 0.85  # shares of the way from after back to before
PEAK_COLUMNS = [
    *("site", "kind", "peak recovery", "95 % interval", "in", "answered right"),
    *("best single layer", "all layers", "ratio of means there", "n (undefined)"),
]


@dataclass(frozen=True)
class Peak:
    """The window in which one site recovers most, and what the site recovers over all layers at once."""

    site: str
    kind: str
    first_layer: int
    last_layer: int
    value: float
    low: float
    high: float
    lowest: float  # over the site's windows
    all_layers: float | None
    single: float | None  # the best single layer
    single_layer: int | None
    other: float  # the ratio of means where `value` is the mean of ratios
    n: int
    n_undefined: int
    most: bool = False  # every window holds more than half of the layers: the patch replaces most of the model

    @property
    def where(self) -> str:
        if self.first_layer < 0:
            return "no layers"
        if self.first_layer == self.last_layer:
            return f"layer {self.first_layer}"
        return f"layers {self.first_layer}–{self.last_layer}"

    @property
    def defined(self) -> bool:
        return self.n > 0


def peaks(rows: pd.DataFrame) -> tuple[Peak, ...]:
    """The peak of every site among the rows of one metric and direction, in the rows' order of sites.

    The peak is sought over windows of at most half of the layers, where the site has such: a patch that replaces most
    of the model brings back what the donor is, and says nothing about where.
    """
    last = int(rows["last_layer"].max()) if len(rows) else -1
    result = []
    for site, windows in rows.groupby("site", sort=False, observed=True):
        everywhere = (windows["first_layer"] == 0) & (windows["last_layer"] == last)
        wide = most_layers(windows, last)
        parts = windows[~wide] if (~wide).any() else windows
        whole = windows[everywhere & windows["mean_of_ratios"].notna()]
        defined = parts[parts["mean_of_ratios"].notna()]
        best = _highest(defined) if len(defined) else parts.iloc[0]
        one = windows[(windows["first_layer"] >= 0) & (windows["first_layer"] == windows["last_layer"])]
        one = one[one["mean_of_ratios"].notna()]
        single = _highest(one) if len(one) else None
        result.append(
            Peak(
                site=str(site),
                kind=str(best["kind"]),
                first_layer=int(best["first_layer"]),
                last_layer=int(best["last_layer"]),
                value=float(best["mean_of_ratios"]),
                low=float(best["mean_low"]),
                high=float(best["mean_high"]),
                lowest=float(windows["mean_of_ratios"].min()),
                all_layers=float(whole["mean_of_ratios"].iloc[0]) if len(whole) else None,
                single=None if single is None else float(single["mean_of_ratios"]),
                single_layer=None if single is None else int(single["first_layer"]),
                other=float(best["ratio_of_means"]),
                n=int(best["n"]),
                n_undefined=int(best["n_undefined"]),
                most=bool(wide.all()),
            )
        )
    return tuple(result)


def most_layers(windows: pd.DataFrame, last: int) -> pd.Series:
    """Of each window whether it holds more than half of the layers of a model whose last layer is `last`."""
    held = windows["last_layer"] - windows["first_layer"] + 1
    return (windows["first_layer"] >= 0) & (last > 0) & (held > MOST * (last + 1))


def _highest(rows: pd.DataFrame) -> pd.Series:
    return rows.iloc[int(rows["mean_of_ratios"].to_numpy().argmax())]


def amount(value: float) -> str:
    """A recovery in words."""
    if value >= NEARLY_ALL:
        return "nearly everything"
    if value >= MUCH:
        return "much"
    if value >= PART:
        return "a part"
    return "little" if value >= NOTHING else "next to nothing"


def judged(passed: object) -> bool:
    """Whether a control has a verdict; without one it is a measurement that helps to read the others."""
    return not pd.isna(passed)  # pyright: ignore[reportArgumentType, reportReturnType, reportCallIssue]


def decimal(value: float) -> str:
    """A recovery as it is written; never "-0.00"."""
    return f"{round(value, 2) + 0.0:.2f}"


def _interval(low: float, high: float) -> str:
    return "–" if pd.isna(low) else f"{decimal(low)} to {decimal(high)}"


def answered(answers: pd.DataFrame, found: Iterable[Peak], direction: str) -> dict[str, float]:
    """The share of facts answered right under the patch at each site's peak, patched in this direction."""
    if answers.empty:
        return {}
    answers = answers[answers["direction"] == direction]
    shares = answers.groupby(["site", "first_layer", "last_layer"], observed=True)["correct"].mean()
    places = {peak.site: (peak.site, peak.first_layer, peak.last_layer) for peak in found}
    return {site: float(shares[place]) for site, place in places.items() if place in shares.index}


def peak_table(found: Iterable[Peak], answered: Mapping[str, float]) -> pd.DataFrame:
    """The peaks as a table of texts; `answered`: the share of facts answered right under each site's best patch."""
    rows = []
    for peak in found:
        numbers = ("undefined", *[""] * 6)
        if peak.defined:
            numbers = (
                decimal(peak.value),
                _interval(peak.low, peak.high),
                "–" if peak.first_layer < 0 else peak.where,
                f"{answered[peak.site]:.1%}" if peak.site in answered else "–",
                "–" if peak.single is None else f"{decimal(peak.single)} (layer {peak.single_layer})",
                "–" if peak.all_layers is None else decimal(peak.all_layers),
                decimal(peak.other),
            )
        rows.append((peak.site, peak.kind, *numbers, f"{peak.n} ({peak.n_undefined})"))
    return pd.DataFrame(rows, columns=PEAK_COLUMNS)


def strongest(summary: pd.DataFrame, metric: str = PAPER_METRIC, answers: pd.DataFrame | None = None) -> pd.DataFrame:
    """What a dissection shows of itself: the peak of every site; of maps, each site's best layer and position.

    Of two directions the first. With the dissection's `answers`, beside each peak how many facts are answered right
    under that patch.
    """
    direction = summary["direction"].iloc[0]
    rows = summary[(summary["metric"] == metric) & (summary["direction"] == direction)]
    whole = rows[rows["position"].isna()]
    if len(whole):
        found = peaks(whole)
        table = peak_table(found, {} if answers is None else answered(answers, found, direction))
        return table.drop(columns=["ratio of means there", *(["answered right"] if answers is None else [])])
    best = rows.sort_values("mean_of_ratios", ascending=False, kind="stable").drop_duplicates("site")
    return pd.DataFrame(
        {
            "site": best["site"].astype(str),
            "layer": best["first_layer"].astype(str),
            "position": best["position"].astype(str),
            "recovery": ["undefined" if pd.isna(value) else decimal(value) for value in best["mean_of_ratios"]],
            "95 % interval": [
                _interval(low, high) for low, high in zip(best["mean_low"], best["mean_high"], strict=True)
            ],
            "n (undefined)": [f"{row.n} ({row.n_undefined})" for row in best.itertuples()],
        }
    )
