"""The one forward pass: what is scored, in chunks or not, with gradients or not; and taking a pass up again."""

import pytest
import torch
from torch import nn

from mechunlearn.errors import UserError
from mechunlearn.facts import Tokens
from mechunlearn.models import forward as module, hf, load
from mechunlearn.models.forward import (
    check_replay,
    in_chunks,
    record,
    resume,
    rows_at_once,
    scored_logits,
    unembed,
)

from ..architectures import NAMES, VOCABULARY, tiny
from ..pairs import before, changed, rows


@torch.no_grad()
def plain_logits(model, tokens: Tokens) -> torch.Tensor:
    """The oracle: transformers' own pass over everything."""
    return hf(model)(input_ids=tokens.ids, attention_mask=tokens.attention, use_cache=False).logits[tokens.predicts]


@pytest.mark.parametrize("name", NAMES)
def test_scored_logits_are_the_models_own(name):
    tokens = rows((12, 7, 9, 11))
    with torch.no_grad():
        found = scored_logits(before(name), tokens)
    torch.testing.assert_close(found, plain_logits(before(name), tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("most", [1, 3 * VOCABULARY, 10**9])
def test_chunks_hold_every_scored_position_once_and_in_order(name, most, monkeypatch):
    """However little memory there is: down to one position at a time."""
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", most)
    model, tokens = before(name), rows((12, 7, 9, 11), answer=5)
    found, places = [], []
    with torch.no_grad():
        for some, batch in in_chunks(model, tokens, 3):
            logits = scored_logits(model, batch)
            assert batch.predicts.any(0).sum() * len(batch) * VOCABULARY <= max(most, VOCABULARY)
            assert len(batch) == len(some) <= 3
            found.append(logits)
            places += [some[row] for row in batch.predicts.nonzero()[:, 0].tolist()]
            assert torch.equal(batch.targets, tokens.targets[len(places) - len(logits) : len(places)])
    assert places == tokens.predicts.nonzero()[:, 0].tolist()
    whole = plain_logits(model, tokens)
    torch.testing.assert_close(torch.cat(found), whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))


@pytest.mark.parametrize("most", [1, 12, 24, 30, 10**6])
def test_no_pass_has_more_tokens_than_are_allowed_whatever_batch_is_asked_for(most, monkeypatch):
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", most)
    model, tokens = before("llama"), rows((12, 7, 9, 11, 3, 4), answer=2)
    found = [(list(some), batch.ids.numel()) for some, batch in in_chunks(model, tokens, 10**9)]
    assert [row for some, _ in found for row in some] == list(range(6))
    assert all(size <= most or len(some) == 1 for some, size in found)
    assert len(found) == {1: 6, 12: 5, 24: 3, 30: 3, 10**6: 1}[most]
    assert [rows_at_once(model, size, 4) for size in (1, 3, 10**9)] == [1, min(3, max(1, most // 4)), max(1, most // 4)]


def test_gradients_are_the_callers_choice():
    model, tokens = load(tiny("llama")), rows()
    scored_logits(model, tokens).logsumexp(-1).sum().backward()
    ours = [parameter.grad.clone() for parameter in hf(model).parameters()]
    model.zero_grad()
    whole = hf(model)(input_ids=tokens.ids, attention_mask=tokens.attention).logits
    whole[tokens.predicts].logsumexp(-1).sum().backward()
    for mine, parameter in zip(ours, hf(model).parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-5)
    # A recorded pass carries gradients too: from the last stream to what a hook saw below.
    trace = record(model, tokens, ["blocks.1.mlp.hook_post"])
    (gradient,) = torch.autograd.grad(trace.entries[-1].sum(), trace.saved["blocks.1.mlp.hook_post"])
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        assert not record(model, tokens).entries[-1].requires_grad


class Full(nn.Module):
    """A model that only knows how to give all its logits."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, attention_mask):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits


def test_models_of_transformers_and_plain_callables_are_scored_alike():
    inner, tokens = tiny("gpt2"), rows()
    with torch.no_grad():
        expected = scored_logits(inner, tokens)
        torch.testing.assert_close(scored_logits(Full(inner), tokens), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            scored_logits(lambda ids, attention_mask: Full(inner)(ids, attention_mask), tokens), expected,
            rtol=1e-5, atol=1e-5,
        )  # fmt: skip


def test_resume_fires_the_users_hooks_and_any_transformer_lens_hook():
    model, tokens = before("llama"), rows()
    trace = record(model, tokens)

    def halve(value, hook):
        return value / 2

    names = ["blocks.2.attn.hook_pattern", "blocks.3.ln2.hook_normalized"]
    with torch.no_grad():
        expected = model.run_with_hooks(
            tokens.ids, attention_mask=tokens.attention, fwd_hooks=[(name, halve) for name in names]
        )
    final = resume(model, trace, 2, trace.entries[2], torch.arange(3), [(name, halve) for name in names])
    real = tokens.attention.bool()
    torch.testing.assert_close(unembed(model, final[real]), expected[real], rtol=1e-5, atol=1e-5)


def test_a_hook_that_never_fires_is_an_error():
    with pytest.raises(UserError, match="does not fire"):
        record(before("llama"), rows(), ["blocks.1.attn.hook_result"])


def test_an_architecture_that_is_not_replayed_is_refused(monkeypatch):
    model = changed(before("gemma2"), lambda _: True)
    model.original_model.config.final_logit_softcapping = 1.0  # the model's own forward pass caps, ours must too
    assert check_replay(model, rows()) < 1e-4
    original = model.original_model.forward

    def doubled(logits_to_keep=0, **rest):
        out = original(logits_to_keep=logits_to_keep, **rest)
        out.logits = out.logits * 2
        return out

    monkeypatch.setattr(model.original_model, "forward", doubled)
    with pytest.raises(UserError, match="not supported"):
        check_replay(model, rows())


def test_the_check_of_a_replay_looks_at_few_positions_of_long_answers(monkeypatch):
    """Of each row the last ones that predict: logits of all would not fit where vocabularies are large."""
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 8 * 3 * VOCABULARY)
    seen, unembedded = [], module.unembed
    monkeypatch.setattr(module, "unembed", lambda model, rows: seen.append(len(rows)) or unembedded(model, rows))
    assert check_replay(before("gemma2"), rows((12, 9, 11), answer=6)) < 1e-4
    assert set(seen) == {12, 6}  # three positions of each of two rows, twice; three of one, twice
