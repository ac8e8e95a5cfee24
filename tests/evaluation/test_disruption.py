"""Loss and divergence on general text against what others compute."""

import pytest
import torch

from mechunlearn.errors import NotFiniteError, UserError
from mechunlearn.evaluation import per_text_loss, text_kl, text_loss, text_scores
from mechunlearn.facts import tokenize_texts

from ..facts.tokenizers import byte_level_bos
from .models import bridge, plain

TEXTS = ["The capital of France is Paris.", "who was born?", "naïve café 東京 🙂 " * 3]


def separately(text: str):
    return byte_level_bos()(text, return_tensors="pt")["input_ids"]


def test_loss_is_that_of_transformers_weighted_by_tokens():
    model, total, count = plain(), 0.0, 0
    for text in TEXTS:
        ids = separately(text)
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert text_loss(bridge(), TEXTS) == pytest.approx(total / count, abs=1e-5)
    assert text_loss(bridge(), TEXTS, batch_size=1) == pytest.approx(total / count, abs=1e-5)


def test_divergence_is_that_of_the_definition():
    ours, theirs, total, count = plain(0).double(), plain(1).double(), 0.0, 0
    for text in TEXTS:
        ids = separately(text)
        with torch.no_grad():
            p = theirs(ids).logits[0, :-1].softmax(-1)
            q = ours(ids).logits[0, :-1].softmax(-1)
        total += (p * (p / q).log()).sum().item()
        count += ids.shape[1] - 1
    assert text_kl(bridge(0), bridge(1), TEXTS) == pytest.approx(total / count, rel=1e-5)
    assert text_kl(bridge(1), bridge(0), TEXTS) != pytest.approx(total / count, rel=1e-2)


def test_a_model_does_not_diverge_from_itself():
    model = bridge()
    assert text_kl(model, model, TEXTS) == 0


def test_tokens_serve_instead_of_texts_and_pieces_of_one_text_are_added_up():
    long = TEXTS[2]
    tokens = tokenize_texts([long, TEXTS[0]], byte_level_bos(), context=8)
    assert len(tokens) > 2
    found = per_text_loss(plain(), tokens, batch_size=2)
    assert found.total.shape == (2,)
    assert found.tokens.tolist() == [separately(text).shape[1] - 1 for text in (long, TEXTS[0])]
    assert found.total[1].item() == pytest.approx(
        per_text_loss(plain(), tokens[[row for row, name in enumerate(tokens.fact_ids) if name == "1"]]).total.item()
    )


def test_a_text_longer_than_the_context_is_measured_whole():
    text = "The capital of France is Paris. " * 20
    assert separately(text).shape[1] > 64
    assert per_text_loss(bridge(), [text]).tokens.tolist() == [separately(text).shape[1] - 1]


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="has no tokenizer"):
        text_loss(plain(), TEXTS)
    with pytest.raises(UserError, match="no text"):
        text_loss(bridge(), [])
    wide = plain()
    wide.resize_token_embeddings(len(byte_level_bos()) + 8)
    with pytest.raises(UserError, match="vocabularies of different sizes"):
        text_kl(bridge(), wide, TEXTS)


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_scores_are_those_of_the_definitions(batch_size):
    ours, theirs, sums, count = plain(0).double(), plain(1).double(), [0.0, 0.0, 0.0], 0
    for text in TEXTS:
        ids = separately(text)
        with torch.no_grad():
            p = theirs(ids).logits[0, :-1].softmax(-1)
            q = ours(ids).logits[0, :-1].softmax(-1)
        sums[0] -= sum(q[place, token].log().item() for place, token in enumerate(ids[0, 1:]))
        sums[1] += (p * (p / q).log()).sum().item()
        sums[2] -= (q * q.log()).sum().item()
        count += ids.shape[1] - 1
    found = text_scores(bridge(0), bridge(1), TEXTS, batch_size)
    assert tuple(found) == pytest.approx([value / count for value in sums], rel=1e-5)
    assert found.loss == pytest.approx(text_loss(bridge(0), TEXTS), rel=1e-6)
    assert found.kl == pytest.approx(text_kl(bridge(0), bridge(1), TEXTS), rel=1e-6)


def test_scores_of_a_model_against_itself():
    model = bridge()
    found = text_scores(model, model, TEXTS)
    assert found.kl == 0
    assert 0 < found.entropy < torch.tensor(float(len(byte_level_bos()))).log().item()


def test_scores_refuse_logits_that_are_not_numbers():
    broken = plain()
    with torch.no_grad():
        broken.lm_head.weight[0, 0] = torch.nan
    tokens = tokenize_texts(TEXTS, byte_level_bos())
    with pytest.raises(NotFiniteError, match="not numbers"):
        text_scores(broken, bridge(), tokens)
