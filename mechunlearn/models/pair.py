"""Two models side by side: may they be compared at all, and which of their tensors differ?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from ..errors import UserError
from ..showing import shown
from .anatomy import Slot, slots
from .checkpoint import hf
from .loading import Source, load

SHAPE = ("n_layers", "d_model", "d_mlp", "n_heads", "n_key_value_heads", "d_head", "d_vocab", "n_ctx")


@dataclass(frozen=True)
class Comparison:
    """What differs between two models of one architecture.

    `frame` has one row a tensor: `name, path, layer, role, elements, differs, relative_change` (‖after − before‖ /
    ‖before‖, Frobenius, unitless). `different` holds the paths of the tensors that differ in any bit.
    """

    frame: pd.DataFrame

    @property
    def different(self) -> frozenset[str]:
        return frozenset(self.frame.loc[self.frame["differs"], "path"])

    @property
    def about(self) -> dict[str, Any]:
        """The same as plain values: counts, names of tensors that differ, and relative change by role."""
        by_role = self.frame.groupby("role")["relative_change"].agg(["mean", "max"])
        return {
            "tensors": len(self.frame),
            "differ": int(self.frame["differs"].sum()),
            "names": self.frame.loc[self.frame["differs"], "name"].tolist(),
            "relative_change": {str(role): {"mean": float(m), "max": float(x)} for role, m, x in by_role.itertuples()},
        }

    def __str__(self) -> str:
        return f"{int(self.frame['differs'].sum())} of {len(self.frame)} tensors differ"

    def _repr_html_(self) -> str:
        roles = self.frame.groupby("role", sort=False)
        table = roles.agg(
            tensors=("name", "size"),
            differ=("differs", "sum"),
            mean_relative_change=("relative_change", "mean"),
            largest=("relative_change", "max"),
        )
        return shown(f"{self}; relative change by role:", table.reset_index())


def compare(before: Source, after: Source) -> Comparison:
    """Check that the two models can be patched into each other, and list the tensors that differ.

    Both are anything that `load` takes.

    Raises:
        UserError: naming every difference that forbids it: architecture, layers, widths, heads, vocabulary,
            tokenizer, dtype, device, compatibility mode.
    """
    for which, model in (("before", before), ("after", after)):
        if getattr(model, "compatibility_mode", False):
            raise UserError(
                f"before and after cannot be compared: {which} is in compatibility mode, which folds its weights; "
                "load it again without"
            )
    before, after = load(before), load(after)
    problems = [*_configuration(before, after), *_tokenizers(before, after)]
    ours, theirs = slots(before), slots(after)
    if not problems and [(s.path, s.tensor.shape) for s in ours] != [(s.path, s.tensor.shape) for s in theirs]:
        problems.append("their parameters have other names or shapes")
    if problems:
        raise UserError("before and after cannot be compared: " + "; ".join(problems))
    return Comparison(pd.DataFrame([_row(a, b) for a, b in zip(ours, theirs, strict=True)]))


def _configuration(before: TransformerBridge, after: TransformerBridge) -> list[str]:
    problems = []
    kinds = [type(hf(model)).__name__ for model in (before, after)]
    if kinds[0] != kinds[1]:
        problems.append(f"architecture: before is {kinds[0]}, after is {kinds[1]}")
    for field in SHAPE:
        a, b = getattr(before.cfg, field, None), getattr(after.cfg, field, None)
        if a != b:
            problems.append(f"{field}: before has {a}, after has {b}")
    for title, get in (("dtype", lambda p: p.dtype), ("device", lambda p: p.device)):
        a, b = (get(next(hf(model).parameters())) for model in (before, after))
        if a != b:
            problems.append(f"{title}: before is {a}, after is {b} (load both with the same {title}=)")
    return problems


def _tokenizers(before: TransformerBridge, after: TransformerBridge) -> list[str]:
    a, b = before.tokenizer, after.tokenizer
    if a is None or b is None or a is b:
        return []
    vocabularies = a.get_vocab(), b.get_vocab()
    if vocabularies[0] != vocabularies[1]:
        words = sorted(vocabularies[0].items() ^ vocabularies[1].items())
        return [f"tokenizer: {len({word for word, _ in words})} entries differ (first: {words[0][0]!r})"]
    probe = "Was it erased, or only hidden? 1 2 3."
    if a(probe)["input_ids"] != b(probe)["input_ids"]:
        return ["tokenizer: the same vocabulary, but the same text gives other tokens"]
    return []


def _row(before: Slot, after: Slot) -> dict[str, object]:
    a, b = before.tensor.detach(), after.tensor.detach()
    differs = not torch.equal(a, b)
    change = torch.linalg.vector_norm((b - a).double()) / torch.linalg.vector_norm(a.double()) if differs else 0.0
    return {
        "name": before.name,
        "path": before.path,
        "layer": before.layer,
        "role": "+".join(before.roles),
        "elements": a.numel(),
        "differs": differs,
        "relative_change": float(change),
    }
