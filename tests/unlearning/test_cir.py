"""CIR's update: its length, its directions, and when it does not move at all."""

from dataclasses import replace

import pytest
import torch

from mechunlearn.errors import UserError
from mechunlearn.models import clone, hf
from mechunlearn.training import Settings, Trainer, borrowed
from mechunlearn.unlearning import CIR, METHODS, NPO, Budget, GradientAscent, kept_row, unlearn
from mechunlearn.unlearning.data.batches import Piece, Sources, assemble, draw
from mechunlearn.unlearning.data.rows import fact_rows, text_rows, trained
from mechunlearn.unlearning.options import Options

from .conftest import TEXT

PLAIN = {"objective": GradientAscent(), "retain": "cross_entropy"}


class Run:
    """CIR's routine on a copy of the model, step by step."""

    def __init__(self, method: CIR, knowing, facts, rows: int = 8, trainable: tuple[str, ...] | None = None) -> None:
        self.method, self.start, self.after = method, knowing, clone(knowing)
        forget = fact_rows(trained(facts.forget), knowing)
        self.sources = Sources(forget, fact_rows(trained(facts.retain), knowing), text=text_rows(TEXT, knowing))
        if method.uses_start_nll:
            self.sources = self.sources.with_start(knowing, 8)
        self.parameters = Options(trainable=trainable).parameters(method, self.after)
        self.drawn = draw(self.sources, rows, 0)
        self.settings = Settings(50, 1e-3)

    def pieces(self, count: int = 1, drop_nothing: bool = False) -> list[Piece]:
        pieces = assemble(self.sources, next(self.drawn), count)
        if not drop_nothing:
            return pieces
        everything = lambda part: replace(part, valid=part.tokens.attention.bool())  # noqa: E731
        return [replace(piece, parts={k: everything(part) for k, part in piece.parts.items()}) for piece in pieces]

    def routine(self, epoch: int = 1):
        return self.method.routine(self.after, self.start, self.parameters, self.settings, epoch)

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters]).clone()


def moved(run: Run, steps: int, epoch: int = 1) -> list[torch.Tensor]:
    """What each of some steps changed."""
    changes = []
    with run.routine(epoch) as routine, borrowed(hf(run.after)):
        trainer = Trainer(hf(run.after), routine.phases, 0, run.parameters)
        for step in range(1, steps + 1):
            before = run.weights()
            trainer.advance(run.pieces())
            routine.after_step(step)
            changes.append(run.weights() - before)
    return changes


def test_without_directions_and_dropped_tokens_it_is_autograds_gradient(knowing, facts):
    method = CIR(**PLAIN, activations=0, gradients=0, retain_rate=0.0)
    run = Run(method, knowing, facts)
    pieces = run.pieces(drop_nothing=True)
    with run.routine() as routine, borrowed(hf(run.after)):
        before = run.weights()
        trainer = Trainer(hf(run.after), routine.phases, 0, run.parameters)
        norm = trainer.advance(pieces)["gradient_norm"]
    change = run.weights() - before

    twin = clone(knowing)
    chosen = Options().parameters(method, twin)
    tokens = pieces[0].parts["forget"].tokens
    logits = hf(twin)(input_ids=tokens.ids, attention_mask=tokens.attention).logits
    loss = torch.nn.functional.cross_entropy(logits[tokens.predicts], tokens.targets)
    gradient = torch.cat([part.flatten() for part in torch.autograd.grad(-loss, chosen)])
    assert norm == pytest.approx(float(gradient.norm()), rel=1e-5)
    torch.testing.assert_close(change, -method.step_norm * gradient / gradient.norm(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"activations": 3, "gradients": 4},
        {"activations": 1, "gradients": 0},
        {"activations": 0.25, "gradients": 0.1, "collapse": "soft"},
        {"activations": 3, "gradients": 4, "form": "weights"},
        {"activations": 3, "gradients": 4, "faithful": True},
        {"activations": 3, "gradients": 4, "statistics": "retain"},
    ],
)
def test_the_first_epoch_only_collects_and_every_step_then_has_the_set_length(knowing, facts, settings):
    run = Run(CIR(**PLAIN, **settings, step_norm=0.03, retain_rate=0.0), knowing, facts)
    if settings.get("statistics") == "retain":
        run.method = replace(run.method, retain_rate=1e-12)
    changes = moved(run, 5, epoch=2)
    assert [float(change.norm()) for change in changes[:2]] == pytest.approx([0, 0], abs=1e-9)
    assert [float(change.norm()) for change in changes[2:]] == pytest.approx([0.03] * 3, rel=1e-4)


def test_the_update_is_free_of_the_directions(knowing, facts):
    """ΔW ã-side lies in the complement of the collapsed inputs, its g̃-side in that of the collapsed gradients."""
    run = Run(CIR(**PLAIN, activations=5, gradients=6, retain_rate=0.0), knowing, facts)
    with run.routine() as routine, borrowed(hf(run.after)):
        trainer = Trainer(hf(run.after), routine.phases, 0, run.parameters)
        trainer.advance(run.pieces())
        routine.after_step(1)
        held = {name: value.clone() for name, value in routine.state().items()}
        before = [parameter.detach().clone() for parameter in run.parameters]
        trainer.advance(run.pieces())
    for place, (parameter, old) in enumerate(zip(run.parameters, before, strict=True)):
        change = parameter.detach() - old
        assert float(change.norm()) > 0
        for side, flat in (("a", change), ("g", change.T)):
            basis = held[f"{place}.{side}.collapse.basis"]
            assert basis.shape[1] == (5 if side == "a" else 6)
            assert float((flat @ basis).abs().max()) < 1e-4 * float(change.norm())


def test_a_forget_gradient_wholly_in_the_collapsed_space_moves_nothing(knowing, facts):
    """One fact has fewer tokens than there are directions, so nothing of it is left."""
    run = Run(CIR(**PLAIN, activations=30, gradients=0, retain_rate=0.0), knowing, facts)
    run.sources = replace(run.sources, forget=fact_rows(facts[:1], knowing))
    run.drawn = draw(run.sources, 1, 0)
    assert all(float(change.norm()) == 0 for change in moved(run, 4))


def test_retention_pulls_back_and_touches_no_statistics(knowing, facts):
    run = Run(CIR(**PLAIN, activations=3, gradients=3, step_norm=0.05, retain_rate=0.5), knowing, facts)
    with run.routine() as routine, borrowed(hf(run.after)):
        trainer = Trainer(hf(run.after), routine.phases, 0, run.parameters)
        seen = []
        for step in range(1, 4):
            row = trainer.advance(run.pieces())
            seen.append(int(routine.state()["0.a.stream.seen"]))
            routine.after_step(step)
    assert {"loss", "forget", "retain_loss", "retain_retain", "retain_text"} <= set(row)
    valid = int(run.sources.forget.valid.sum())
    assert seen == [valid] * 3  # 8 rows a step are all there are


def test_pieces_of_a_step_give_the_undivided_step(knowing, facts):
    changes = []
    for count in (1, 4):
        run = Run(CIR(**PLAIN, activations=3, gradients=3), knowing, facts)
        with run.routine() as routine, borrowed(hf(run.after)):
            trainer = Trainer(hf(run.after), routine.phases, 0, run.parameters)
            for step in range(1, 4):
                trainer.advance(run.pieces(count))
                routine.after_step(step)
        changes.append(run.weights())
    torch.testing.assert_close(*changes, rtol=0, atol=2e-5)


@pytest.mark.parametrize("form", ["tokens", "weights"])
def test_what_it_remembers_can_be_put_back(knowing, facts, form):
    settings = {"activations": 3, "gradients": 3, "form": form}
    run, other = (Run(CIR(**PLAIN, **settings), knowing, facts) for _ in range(2))
    with run.routine(2) as routine, borrowed(hf(run.after)):
        trainer = Trainer(hf(run.after), routine.phases, 0, run.parameters)
        for step in range(1, 4):
            trainer.advance(run.pieces())
            routine.after_step(step)
        saved = trainer.state(), {name: value.clone() for name, value in routine.state().items()}
        pieces = run.pieces()
        trainer.advance(pieces)
    with other.routine(2) as routine, borrowed(hf(other.after)):
        trainer = Trainer(hf(other.after), routine.phases, 0, other.parameters)
        trainer.restore(saved[0])
        routine.restore(saved[1])
        trainer.advance(pieces)
    assert torch.equal(run.weights(), other.weights())


@pytest.mark.parametrize("objective", [name for name, method in METHODS.items() if not method.sets_step_size])
def test_every_loss_can_be_its_objective(knowing, facts, objective):
    loss = METHODS[objective]
    loss = replace(loss, refusals=("dark grey",)) if hasattr(loss, "refusals") else loss  # words of the tiny tokenizer
    method = CIR(objective=loss, activations=2, gradients=2)
    run = unlearn(
        knowing, method, facts.forget, facts.retain, text=TEXT, retain_text=TEXT, steps=4, batch_size=4, progress=False
    )
    assert run.frame["loss"].iloc[-1] == pytest.approx(run.frame["loss_forget"].iloc[-1])
    changed = {
        name
        for (name, one), other in zip(hf(knowing).named_parameters(), hf(run.model).parameters(), strict=True)
        if not torch.equal(one, other)
    }
    assert changed and all(".mlp." in name for name in changed)


def test_faithful_ends_outside_its_budget_and_the_default_goes_back(knowing, facts):
    ends = {}
    for faithful in (True, False):
        method = CIR(objective=GradientAscent(), activations=1, gradients=0, step_norm=1.0, faithful=faithful)
        run = unlearn(
            knowing, method, facts.forget, facts.retain, text=TEXT, budget=Budget(kl=0.02, halvings=2),
            steps=20, batch_size=8, evaluate_every=1, progress=False,
        )  # fmt: skip
        ends[faithful] = run.frame
        assert "budget reached" in run.about["stopped"]
        assert kept_row(run.frame, run.about)["inside"] == (not faithful)
    assert not ends[True]["inside"].iloc[-1] and (~ends[True]["inside"]).sum() == 1
    assert (~ends[False]["inside"]).sum() >= 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"collapse": "mild"}, "mild"),
        ({"statistics": "both"}, "both"),
        ({"form": "shape"}, "shape"),
        ({"activations": -1}, "at least 0"),
        ({"step_norm": 0.0}, "above 0"),
        ({"objective": CIR()}, "not CIR itself"),
        ({"statistics": "retain", "form": "weights"}, "forget"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        CIR(**settings)


def test_bad_use_is_named(knowing, facts):
    with pytest.raises(UserError, match="learning_rate"):
        unlearn(knowing, CIR(), facts.forget, facts.retain, learning_rate=1e-3, progress=False)
    with pytest.raises(UserError, match="linear map"):
        unlearn(knowing, CIR(), facts.forget, facts.retain, trainable="embedding", progress=False)


def test_npo_as_objective_starts_from_the_start_models_likelihood(knowing, facts):
    method = CIR(objective=NPO(beta=0.1), activations=0, gradients=0)
    run = unlearn(knowing, method, facts.forget, facts.retain, steps=1, batch_size=8, evaluate_every=1, progress=False)
    assert run.frame["loss_forget"].iloc[-1] == pytest.approx(2 / 0.1 * 0.6931472, rel=1e-5)
