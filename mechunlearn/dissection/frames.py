"""From what a sweep measured to the tidy frames that everybody reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from transformers import PreTrainedTokenizerBase

from ..facts import Facts, Tokens, fact_of
from .metrics import METRICS
from .patches import Patch
from .sweep import DONOR, PLAIN

MODELS = {"before->after": {"before": DONOR, "after": PLAIN}, "after->before": {"after": DONOR, "before": PLAIN}}


@dataclass(frozen=True)
class Measured:
    """What a sweep measured (`Sweep.units`), with what it was measured on."""

    units: pd.DataFrame
    chosen: list[Patch]
    questions: Facts
    tokens: Tokens
    reached: Bool[np.ndarray, " question"]  # which questions have any of the positions that are patched
    direction: str
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def noise_floor(self) -> dict[str, float]:
        """The denominator that a row needs to be defined: what lies below is not told apart from rounding."""
        return {name: metric.margin * float(self.units[f"noise:{name}"].max()) for name, metric in METRICS.items()}

    def recovery(self) -> pd.DataFrame:
        """One row per patch × metric × question, in the columns of `Dissection.frame`."""
        patches, count = len(self.chosen), len(self.questions)
        asked = {name: np.tile(column, patches) for name, column in self._labels().items()}
        last = self.tokens.predicts.shape[1] - 1 - self.tokens.predicts.flip(1).int().argmax(1).numpy()
        reached = np.concatenate([self._reaches(patch, last) for patch in self.chosen])
        positions = np.asarray([patch.position for patch in self.chosen], dtype=object)
        tokens = [self._token(patch, row) for patch in self.chosen for row in range(count)]
        same = pd.DataFrame(
            asked
            | self._windows(self.chosen, lambda values: np.repeat(values, count))
            | {"position": pd.array(np.repeat(positions, count), "Int64"), "token": pd.array(tokens, "string")}
        )
        parts = []
        for metric in METRICS:
            distance, (baseline,) = self._table(metric, range(patches)), self._table(metric, [PLAIN])
            recovered = pd.DataFrame(recovery_columns(metric, distance, baseline, self.noise_floor[metric]))
            parts.append(pd.concat([same, recovered], axis=1)[reached])
        return pd.concat(parts, ignore_index=True)

    def facts(self) -> pd.DataFrame:
        """What either model says to each question: the most probable token at each predicting position."""
        table: dict[str, Any] = self._labels() | {
            "prompt": [fact.prompt for fact in self.questions],
            "answer": [fact.answer for fact in self.questions],
        }
        models = MODELS[self.direction]
        said = {name: self._table("said", [models[name]])[0] for name in ("before", "after")}
        table |= {f"{name}_answer": [self._words(answer) for answer in said[name]] for name in said}
        table |= {f"{name}_logprob": self._table("logprob", [models[name]])[0].astype(float) for name in said}
        table |= {f"{name}_correct": self._right(said[name]) for name in said}
        table |= {f"{name}_probability": self._probability(self._table("logprob", [models[name]])[0]) for name in said}
        table |= {f"{name}_rank": self._table("rank", [models[name]])[0].astype(float) for name in said}
        return pd.DataFrame(table)

    def answers(self) -> pd.DataFrame:
        """What the recipient says to each question under every patch, in the columns of `Dissection.answers`.

        Patches of single positions are left out: they are there to be seen on a map.
        """
        whole = [number for number, patch in enumerate(self.chosen) if patch.position is None]
        asked = {name: np.repeat(column, len(whole)) for name, column in self._labels().items()}
        windows = self._windows([self.chosen[number] for number in whole], lambda v: np.tile(v, len(self.questions)))
        del windows["kind"]
        said = self._table("said", whole).T  # question by question
        return pd.DataFrame(
            asked
            | windows
            | {
                "answer": pd.Categorical([self._words(answer) for answers in said for answer in answers]),
                "correct": np.array([self._right(answers) for answers in said.T], dtype=bool).T.ravel(),
                "probability": self._probability(self._table("logprob", whole)).T.ravel(),
                "rank": self._table("rank", whole).astype(float).T.ravel(),
            }
        )

    def _reaches(self, patch: Patch, last: np.ndarray) -> np.ndarray:
        """For each question whether the patch writes anywhere up to the last position that predicts its answer."""
        if patch.site.kind == "parameters":
            return np.ones(len(last), dtype=bool)
        return self.reached if patch.position is None else patch.position <= last

    def _labels(self) -> dict[str, Any]:
        """What every frame says of a question: the fact that it asks for, itself, and the fact's subject."""
        ids = [fact.id for fact in self.questions]
        subjects = [fact.subject for fact in self.questions]
        named = {"fact": [fact_of(name) for name in ids], "question": ids, "subject": subjects}
        return {name: np.asarray(values, dtype=object) for name, values in named.items()}

    def _windows(self, chosen: list[Patch], spread: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        """Site, direction and layers of these patches, spread over the rows."""
        sites = [patch.site.name for patch in chosen]
        return {
            "site": pd.Categorical(spread(np.asarray(sites, dtype=object)), list(dict.fromkeys(sites))),
            "kind": pd.Categorical(spread(np.asarray([patch.site.kind for patch in chosen], dtype=object)),
                                   ["activation", "parameters"]),
            "direction": self.direction,
            "first_layer": spread(np.asarray([patch.first for patch in chosen], dtype=np.int64)),
            "last_layer": spread(np.asarray([patch.last for patch in chosen], dtype=np.int64)),
        }  # fmt: skip

    @cached_property
    def _places(self) -> pd.DataFrame:
        """The units, by patch and by the question's place."""
        place = {name: place for place, name in enumerate(self.tokens.fact_ids)}
        keyed = self.units.assign(place=self.units["question"].map(place))
        return keyed.sort_values(["patch", "place"], kind="stable").set_index("patch")

    def _table(self, column: str, patches: Iterable[int]) -> Float[np.ndarray, "patch question"] | np.ndarray:
        """A column of the units: these patches by the questions in their order."""
        count, first = len(self.questions), DONOR  # numbers of patches follow those of the two models
        rows = self._places[column].to_numpy().reshape(-1, count)
        return rows[[number - first for number in patches]]

    def _token(self, patch: Patch, row: int) -> str | None:
        """The token that a patch of one position is at."""
        if patch.position is None or patch.position >= self.tokens.ids.shape[1]:
            return None
        return str(self.tokenizer.decode([int(self.tokens.ids[row, patch.position])]))

    @cached_property
    def _expected(self) -> list[tuple[int, ...]]:
        return [tuple(self.tokens[[row]].targets.tolist()) for row in range(len(self.tokens))]

    def _right(self, answers: Iterable[Any]) -> list[bool]:
        """Of each question's answer, whether it is the expected one, every token."""
        return [tuple(answer) == right for answer, right in zip(answers, self._expected, strict=True)]

    def _probability(self, logprob: np.ndarray) -> np.ndarray:
        """Of an answer token: the geometric mean over the answer; the last axis runs over the questions."""
        return np.exp(logprob.astype(float) / np.array([len(tokens) for tokens in self._expected]))

    def _words(self, answer: Iterable[Any]) -> str:
        key = tuple(int(token) for token in answer)
        if key not in self._known:
            self._known[key] = str(self.tokenizer.decode(list(key))).strip()
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[int, ...], str]:
        """Answers that were put into words already: most patches give one of few."""
        return {}


def recovery_columns(metric: str, distance: np.ndarray, baseline: np.ndarray, floor: float) -> dict[str, Any]:
    """Distances "patch question" and denominators "question" as columns, patch after patch."""
    distance, baseline = distance.astype(float), baseline.astype(float)
    defined = baseline > floor
    with np.errstate(divide="ignore", invalid="ignore"):
        recovery = np.where(defined, 1 - distance / baseline, np.nan)
    return {
        "metric": pd.Categorical([metric] * distance.size, list(METRICS)),
        "distance": distance.ravel(),
        "baseline": np.tile(baseline, len(distance)),
        "recovery": recovery.ravel(),
        "defined": np.tile(defined, len(distance)),
    }
