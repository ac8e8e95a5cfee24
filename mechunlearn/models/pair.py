"""Two models side by side: may they be compared at all, and which of their tensors differ?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pandas as pd
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from ..checking import checked
from ..errors import UserError
from ..showing import shown
from .anatomy import Slot, slots
from .checkpoint import clone, hf
from .identity import differences
from .loading import Source, load

PROBE = "Was it erased, or only hidden? 1 2 3."
SHAPE = ("n_layers", "d_model", "d_mlp", "n_heads", "n_key_value_heads", "d_head", "d_vocab", "n_ctx")


@dataclass(frozen=True)
class Comparison:
    """What differs between two models of one architecture.

    `frame` has one row a tensor: `name, path, layer, role, elements, differs, relative_change` (‖after − before‖ /
    ‖before‖, Frobenius, unitless). `different` holds the paths of the tensors that differ in any bit. `configuration`
    holds the fields of the configurations that differ and enter a computation, each with (before, after). `notes` says
    what else differs without forbidding anything, a sentence each (configurations, tokenizers, tied embeddings).
    """

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()
    configuration: dict[str, tuple[Any, Any]] = field(default_factory=dict)

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
            "configuration": {name: list(values) for name, values in self.configuration.items()},
            "relative_change": {str(role): {"mean": float(m), "max": float(x)} for role, m, x in by_role.itertuples()},
        }

    def __str__(self) -> str:
        counted = f"{int(self.frame['differs'].sum())} of {len(self.frame)} tensors differ"
        return "\n".join([counted, *(f"Mind: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        roles = self.frame.groupby("role", sort=False)
        table = roles.agg(
            tensors=("name", "size"),
            differ=("differs", "sum"),
            mean_relative_change=("relative_change", "mean"),
            largest=("relative_change", "max"),
        )
        return shown(f"{self}; relative change by role:", table.reset_index())


@checked
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
    ties = [_tied(model) for model in (before, after)]
    before, after = matched(before, after)
    problems, notes = _tokenizers(before, after)
    problems = [*_configuration(before, after), *problems]
    ours, theirs = slots(before), slots(after)
    if not problems:
        problems += _names(ours, theirs)
    if problems:
        raise UserError("before and after cannot be compared: " + "; ".join(problems))
    if ties[0] != ties[1]:
        notes.append("embedding and unembedding are one matrix in one model only; they are compared as two")
    differing = differences(before, after)
    if differing:
        notes.append(_configured(differing))
    frame = pd.DataFrame([_row(a, b) for a, b in zip(ours, theirs, strict=True)])
    return Comparison(frame, tuple(notes), differing)


def matched(before: Source, after: Source) -> tuple[TransformerBridge, TransformerBridge]:
    """Both loaded, and alike in their parameters.

    Where embedding and unembedding are one matrix in one model and two in the other (an adapter on the head that was
    merged, say), the one that ties them is copied with two.
    """
    before, after = load(before), load(after)
    if _tied(before) != _tied(after):
        before, after = (untied(model) if _tied(model) else model for model in (before, after))
    return before, after


def untied(model: TransformerBridge) -> TransformerBridge:
    """A copy whose unembedding is a matrix of its own, equal to the embedding."""
    copied = clone(model)
    head = hf(copied).get_output_embeddings()
    while isinstance(head, GeneralizedComponent):
        head = head.original_component
    head = cast(nn.Linear, head)
    head.weight = nn.Parameter(head.weight.detach().clone())
    hf(copied).config.tie_word_embeddings = False
    return copied


def _tied(model: TransformerBridge) -> bool:
    return any({"embedding", "unembedding"} <= set(slot.roles) for slot in slots(model))


def _names(ours: tuple[Slot, ...], theirs: tuple[Slot, ...]) -> list[str]:
    """What parameters only one of the models has, or has in another shape; the first of them by name."""
    shapes = [{slot.name: tuple(slot.tensor.shape) for slot in part} for part in (ours, theirs)]
    odd = [name for name in {**shapes[0], **shapes[1]} if shapes[0].get(name) != shapes[1].get(name)]
    if not odd:
        return []
    has = [f"{which} has {shape.get(odd[0], 'none')}" for which, shape in zip(("before", "after"), shapes, strict=True)]
    return [f"{len(odd)} parameters have other names or shapes (first: {odd[0]}: {', '.join(has)})"]


def _configuration(before: TransformerBridge, after: TransformerBridge) -> list[str]:
    problems = []
    kinds = [type(hf(model)).__name__ for model in (before, after)]
    if kinds[0] != kinds[1]:
        problems.append(f"architecture: before is {kinds[0]}, after is {kinds[1]}")
    for name in SHAPE:
        a, b = getattr(before.cfg, name, None), getattr(after.cfg, name, None)
        if a != b:
            problems.append(f"{name}: before has {a}, after has {b}")
    for title, get in (("dtype", lambda p: p.dtype), ("device", lambda p: p.device)):
        a, b = (get(next(hf(model).parameters())) for model in (before, after))
        if a != b:
            problems.append(f"{title}: before is {a}, after is {b} (load both with the same {title}=)")
    return problems


def _configured(differing: dict[str, tuple[Any, Any]]) -> str:
    listed = ", ".join(f"{name} ({a} before, {b} after)" for name, (a, b) in differing.items())
    return (
        f"the models compute in another way from the same weights: {listed}; patches carry values and parameters over, "
        "not this"
    )


def _tokenizers(before: TransformerBridge, after: TransformerBridge) -> tuple[list[str], list[str]]:
    """What forbids to show both models the same tokens, and what only should be known."""
    a, b = before.tokenizer, after.tokenizer
    if a is None or b is None or a is b:
        return [], []
    ours, theirs = a.get_vocab(), b.get_vocab()
    names = [{number: word for word, number in vocabulary.items()} for vocabulary in (ours, theirs)]
    moved = [word for word in ours.keys() & theirs.keys() if ours[word] != theirs[word]]
    renamed = [names[0][n] for n in names[0].keys() & names[1].keys() if names[0][n] != names[1][n]]
    if moved or renamed:
        words = sorted({*moved, *renamed})
        return [f"tokenizer: {len(words)} tokens have another number or word (first: {words[0]!r})"], []
    notes = []
    for which, own, other in (("before", ours, theirs), ("after", theirs, ours)):
        alone = sorted(own.keys() - other.keys())
        if alone:
            notes.append(f"the tokenizer of {which} alone has {len(alone)} tokens more (first: {alone[0]!r})")
    found = [words(PROBE)["input_ids"] for words in (a, b)]
    if found[0] != found[1]:
        notes.append(
            f"the tokenizers make other tokens of the same text ({len(found[0])} and {len(found[1])} of {PROBE!r})"
        )
    return [], notes


def check_words(before: TransformerBridge, after: TransformerBridge) -> None:
    """Raises UserError: the same token is another word to the two models, so that predictions cannot be compared."""
    if problems := _tokenizers(before, after)[0]:
        raise UserError(f"the models cannot be compared: {problems[0]}; give both the tokenizer that they share")


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
