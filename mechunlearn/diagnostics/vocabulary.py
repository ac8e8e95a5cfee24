"""Which vocabulary a value vector promotes: the value vector projected on the unembedding (arXiv 2203.14680)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from ..checking import checked
from ..errors import UserError
from ..models import Source, load, slots


@checked
@torch.no_grad()
def promoted(model: Source, layer: int, neurons: int | Iterable[int], k: int = 10, *, sign: int = 1) -> pd.DataFrame:
    """The tokens whose logits a neuron raises most where its coefficient is positive.

    A value vector v (row of the down-projection, raw weights) is taken through whatever is linear between it and the
    logits: the norm behind the MLP where the block has one (Gemma 2 and 3, OLMo 2), then the final norm, then the
    unembedding. A norm multiplies by its gain (w; 1 + w in Gemma) and, if it is a LayerNorm (GPT-2), first takes off
    the vector's mean. What depends on the rest of the residual stream is left out: the division by the length, which is
    one positive factor for all tokens and makes the unit of logits arbitrary; biases; caps on the logits, which keep
    the order. So compare tokens of a neuron, and a neuron before with itself after; not logits of different layers.
    What blocks above make of v is left out too.

    Before and after side by side:
    `promoted(before, 3, [17]).merge(promoted(after, 3, [17]), on=["layer", "neuron", "rank"])`.

    Args:
        model: anything that `load` takes.
        layer: of the neurons, from 0.
        neurons: one index of a value vector (`mlp.W_out[i]` in TransformerLens), or several.
        k: how many tokens.
        sign: −1 gives the tokens that are raised where the coefficient is negative, as it often is in gated MLPs.

    Returns:
        One row a neuron and token: `layer, neuron, rank` (from 1), `token` (decoded by itself), `logit` (of +v).

    Raises:
        UserError: no such layer or neuron, `k` outside the vocabulary, another sign, a model without tokenizer, or a
            norm that is neither an RMSNorm nor a LayerNorm.
    """
    model = load(model)
    chosen = [neurons] if isinstance(neurons, int) else [int(neuron) for neuron in neurons]
    if not chosen:
        raise UserError("neurons is empty: give the index of a value vector, or several")
    if model.tokenizer is None:
        raise UserError("the model has no tokenizer to name tokens with; pass tokenizer= to load")
    if sign not in (1, -1):
        raise UserError(f"sign {sign}: it is 1 (coefficients above 0) or -1 (below)")
    every = value_vectors(model)
    if layer not in every:
        raise UserError(f"layer {layer}: the model has value vectors in layers {min(every)} to {max(every)}")
    vectors = every[layer]
    if outside := [neuron for neuron in chosen if not 0 <= neuron < len(vectors)]:
        raise UserError(f"neuron {outside[0]}: layer {layer} has neurons 0 to {len(vectors) - 1}")
    written = vectors[chosen].double()
    for norm in (model.blocks[layer].submodules.get("ln2_post"), model.ln_final):
        written = written if norm is None else _through(norm, written)
    logits = written.to(model.W_U.dtype) @ model.W_U
    if not 0 < k <= logits.shape[1]:
        raise UserError(f"k = {k}: the vocabulary has {logits.shape[1]} tokens")
    best = (sign * logits).topk(k, dim=1).indices
    rows = [
        (layer, neuron, rank, str(model.tokenizer.decode([token])), float(logits[place, token]))
        for place, neuron in enumerate(chosen)
        for rank, token in enumerate(best[place].tolist(), start=1)
    ]
    return pd.DataFrame(rows, columns=["layer", "neuron", "rank", "token", "logit"])


def value_vectors(model: TransformerBridge) -> dict[int, Float[Tensor, "d_mlp d_model"]]:
    """The value vectors of every layer, one a row: the model's own weights, not a copy.

    Raises:
        UserError: the architecture has none.
    """
    found = {}
    for slot in slots(model):
        if "value_vectors" in slot.roles and slot.tensor.dim() == 2:
            found[slot.layer] = slot.tensor.detach() if slot.features == 0 else slot.tensor.detach().T
    if not found:
        raise UserError(f"{type(model.original_model).__name__} has no value vectors (no down-projection of an MLP)")
    return found


def _through(norm: nn.Module, vectors: Float[Tensor, "neuron d_model"]) -> Float[Tensor, "neuron d_model"]:
    """What the norm does to the vectors, apart from dividing by a length and adding a bias.

    Which kind of norm it is, and whether its gain is w or 1 + w, is found out by asking it: class names say little.
    """
    inner: nn.Module = getattr(norm, "original_component", norm)
    weight, bias = (getattr(inner, name, None) for name in ("weight", "bias"))
    like = next(norm.parameters(), vectors)
    generator = torch.Generator().manual_seed(0)
    probe = 1 + torch.randn(4, vectors.shape[1], generator=generator).to(like)
    answer = inner(probe).double()
    tolerance = max(1e-3, 10 * torch.finfo(like.dtype).eps)
    one = torch.ones(vectors.shape[1], dtype=torch.float64, device=vectors.device)
    gains = [one] if weight is None else [weight.double(), 1 + weight.double()]
    for gain, centred in itertools.product(gains, (False, True)):
        scaled = gain * _centre(probe.double(), centred)
        guess = scaled / _centre(probe.double(), centred).square().mean(-1, keepdim=True).sqrt()
        guess = guess if bias is None else guess + bias.double()
        if (guess - answer).abs().max() <= tolerance * answer.abs().max():
            return gain * _centre(vectors, centred)
    raise UserError(f"{type(inner).__name__} is neither an RMSNorm nor a LayerNorm: value vectors cannot be projected")


def _centre(vectors: Float[Tensor, "row d_model"], centred: bool) -> Float[Tensor, "row d_model"]:
    return vectors - vectors.mean(-1, keepdim=True) if centred else vectors
