"""What a suite of attacks found: a tidy frame, and how to read, draw, keep and open it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..checking import checked
from ..evaluation import resampled
from ..runs import RunFolder, read_finished, read_frame
from ..showing import Shown, Table
from .plots import plot_attacks, plot_curve
from .summary import NEEDED, curve, steps_to_recover, summarise_attacks


@dataclass(frozen=True)
class Attacks(Shown):
    """What was asked, and what was answered, under every attack.

    Attributes:
        frame: one row per attack × setting × part × step × model × question: `attack` ("none" for the models as they
            are), `setting`, `part` (what the attacker was shown), `step`, `model` ("after", "never-knew"; "before"
            unattacked and for prompts), `fact`, `question` (the fact's id with that of its phrasing), `subject`,
            `role`, `fold`, `correct` (greedy, every token), `probability` (of an answer token, geometric mean),
            `token_recall` (share of answer tokens that are the most probable one), `tokens` (of the answer),
            `helped` (by what an attacker need not have: the model before, or the beginning of the answer), `broke` (of
            the rows before an attempt that went too far to be asked: its setting and part, and why; else "").
        about: `models` by name, and settings; `left_out` under them names attacks that could not be run, and what they
            lacked. `reached`: of each attack that changes weights, the share of the blocks' parameters that it reaches;
            `notes`: what to mind of that, a sentence each.
    """

    frame: pd.DataFrame
    about: dict[str, Any]

    @checked
    def summary(self, measure: str = "correct", *, by: str = "setting", **options: Any) -> pd.DataFrame:
        """Recall after each attack, worst and last step, beside the model that never knew: see `summarise_attacks`."""
        return Table(summarise_attacks(self.frame, measure, by=by, **options))

    @checked
    def curve(self, measure: str = "correct") -> pd.DataFrame:
        """Recall step by step of the attacks that go in steps."""
        return curve(self.frame, measure)

    @checked
    def steps_to_recover(self, level: float = 0.5) -> pd.DataFrame:
        """The first step at which recall is at `level` or above; NaN where it never is."""
        return steps_to_recover(self.frame, level)

    @checked
    def plot(self, measure: str = "correct", *, by: str = "attack") -> go.Figure:
        """What came back under each attack, beside the model that never knew."""
        return plot_attacks(self.frame, measure, by=by)

    @checked
    def plot_curve(self, measure: str = "correct") -> go.Figure:
        """Recall by step, one line a setting; the never-knew model's dashed."""
        return plot_curve(self.frame, measure)

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write the frame and what made it into a folder.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        kept = RunFolder(folder, "attacks", self.about["settings"])
        kept.finish(self.about, frame=self.frame)
        return kept.path

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> Attacks:
        """Open saved attacks.

        Raises:
            UserError: the folder holds none, unfinished ones, or a broken file.
        """
        run = read_finished(folder, "attacks", "attacks")
        frame = read_frame(Path(folder) / "frame.parquet", NEEDED)
        return cls(frame, run["about"])

    def __repr__(self) -> str:
        names = ", ".join(name for name in dict.fromkeys(self.frame["attack"]) if name != "none")
        return f"Attacks({self._asked()} facts; {names}; {len(self.frame)} rows)"

    def _asked(self) -> int:
        """How many facts that were to be forgotten."""
        return self.frame.loc[self.frame["role"] == "forget", "fact"].nunique()

    def _told(self) -> tuple[str, pd.DataFrame]:
        summary = self.summary(by="attack", resamples=500)
        columns = ["attack", "setting", "n", "start", "value", "low", "high", "never_knew"]
        sentence = (
            f"What came back of {self._asked()} facts under attack: recall before it (start), at the "
            f"strongest setting and step (value; low, high: 95 % intervals over {resampled(summary)}), and in a model "
            "that never knew; plot() draws it."
        )
        return sentence, summary[columns]
