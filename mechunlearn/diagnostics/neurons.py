"""Which neurons unlearning changed most: their value vectors, their coefficients, and what they write together."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from ..checking import checked
from ..facts import Facts, FactSource, Template, Tokens, tokenize
from ..models import Source, compare, load_to_ask, matched
from ..models.forward import record
from ..models.properties import context_of
from ..sites import ACTIVATIONS
from .vocabulary import value_vectors

FACTS_AT_ONCE = 32


@checked
@torch.no_grad()
def neuron_changes(
    before: Source,
    after: Source,
    facts: FactSource,
    *,
    prompts: str = "held_out",
    template: Template | None = None,
) -> pd.DataFrame:
    """For every neuron, how far its value vector v and its coefficient m moved.

    Coefficients are read where the logits predict the answers (as in `dissect`, the answer so far given). Activations
    carry what changed below: a coefficient may differ although no weight of its layer does.

    Args:
        before, after: anything that `load` takes.
        facts: what is asked, as in `dissect`; they need answers.
        prompts: the phrasings that facts are asked in (`Facts.questions`).
        template: how a fact becomes text; default: the facts' own.

    Returns:
        One row a neuron: `layer, neuron`; `value_change` ‖v_after − v_before‖, `value_cosine` between the two;
        `coefficient_before`, `coefficient_after` (means over the predicting positions of all facts),
        `coefficient_change` (mean of |m_after − m_before|), and `write_change`, the mean of
        ‖m_after v_after − m_before v_before‖, in units of the MLP's output: the one column in which a large change of a
        small vector does not look large.

    Raises:
        UserError: the models cannot be compared, have no value vectors or no tokenizer, or the facts cannot be
            tokenised.
    """
    before, after = matched(load_to_ask(before), after)
    compare(before, after)
    questions = Facts.of(facts, role="forget").questions(prompts)
    tokens = tokenize(questions, before.tokenizer, template, context=context_of(before))
    moved = value_vectors(after)
    vectors = {layer: (v, moved[layer]) for layer, v in value_vectors(before).items()}
    sums = {layer: torch.zeros(4, len(v), dtype=torch.float64, device=v.device) for layer, (v, _) in vectors.items()}
    for first in range(0, len(tokens), FACTS_AT_ONCE):
        some = tokens[first : first + FACTS_AT_ONCE].trim().to(next(before.parameters()).device)
        pairs = zip(_coefficients(before, some, list(sums)), _coefficients(after, some, list(sums)), strict=True)
        for layer, (a, b) in zip(sums, pairs, strict=True):
            sums[layer] += _sums(a, b, *vectors[layer])
    n = int(tokens.predicts.sum())
    return pd.concat([_rows(layer, *vectors[layer], sums[layer] / n) for layer in sums], ignore_index=True)


def _coefficients(model: TransformerBridge, tokens: Tokens, layers: list[int]) -> list[Float[Tensor, "position d_mlp"]]:
    """The coefficients at every position that predicts a token of an answer, layer after layer."""
    hooks = [ACTIVATIONS["mlp_coefficients"].replace("{l}", str(layer)) for layer in layers]
    saved = record(model, tokens, hooks).saved
    return [saved[hook][tokens.predicts].double() for hook in hooks]


def _sums(
    a: Float[Tensor, "position d_mlp"],
    b: Float[Tensor, "position d_mlp"],
    v: Float[Tensor, "d_mlp d_model"],
    w: Float[Tensor, "d_mlp d_model"],
) -> Float[Tensor, "4 d_mlp"]:
    """Sums over positions of a, b, |b − a| and ‖b w − a v‖, without writing any of these vectors out."""
    squares, along = [x.double().square().sum(-1) for x in (v, w)], (v.double() * w.double()).sum(-1)
    squared = a.square() * squares[0] + b.square() * squares[1] - 2 * a * b * along
    return torch.stack([part.sum(0) for part in (a, b, (b - a).abs(), squared.clamp(min=0).sqrt())])


def _rows(
    layer: int, v: Float[Tensor, "d_mlp d_model"], w: Float[Tensor, "d_mlp d_model"], means: Float[Tensor, "4 d_mlp"]
) -> pd.DataFrame:
    v, w = v.double(), w.double()
    names = ("coefficient_before", "coefficient_after", "coefficient_change", "write_change")
    columns = {"value_change": (w - v).norm(dim=-1), "value_cosine": torch.cosine_similarity(v, w, dim=-1)}
    columns |= dict(zip(names, means, strict=True))
    numbers = {name: column.cpu().numpy() for name, column in columns.items()}
    return pd.DataFrame({"layer": layer, "neuron": range(len(v)), **numbers})
