"""From facts and a method to the stages of a run: what each forgets, retains, measures and aims at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformer_lens.model_bridge import TransformerBridge

from ...errors import UserError
from ...facts import Fact, Facts, check_passages
from ..loop.budget import chance
from ..loop.evaluations import Watch
from ..loop.stage import Stage
from ..method import Method
from ..methods.layered import Layer, Layered
from ..options import Options
from .batches import Sources
from .rows import fact_rows, text_rows, trained, with_distractors, with_refusals


def check(forget: Facts, retain: Facts, texts: dict[str, Sequence[str] | None]) -> None:
    """Raises UserError: no facts, facts that are both forgotten and retained, a text that is no list of passages."""
    for name, text in texts.items():
        check_passages(text, name)
    for name, facts in (("forget", forget), ("retain", retain)):
        if not len(facts):
            raise UserError(f"there are no facts to {name} in {facts!r}")
    kept = {(fact.prompt, fact.answer) for fact in retain}
    both = [fact.id for fact in forget if (fact.prompt, fact.answer) in kept]
    if both:
        raise UserError(
            f"{len(both)} of {len(forget)} facts to forget are also facts to retain (first: {both[0]!r}); "
            "take them out of one of the two"
        )


def plan(
    model: TransformerBridge,
    layered: Layered,
    forget: Facts,
    retain: Facts,
    text: Sequence[str] | None,
    retain_text: Sequence[str] | None,
    options: Options,
    plain: bool,
) -> list[Stage]:
    """What each stage forgets, retains, measures and aims at; all start from `model` as yet."""
    # A fact that is kept here may be one that is forgotten elsewhere.
    kept = [replace(fact, role=None) if fact.role == "forget" else fact for fact in retain]
    retain = Facts(kept, name=retain.name, format=retain.format, template=retain.template)
    layers = list(layered.layers(forget, retain, options.seed))
    if plain:  # one layer, whose facts keep folds of their own (RMU may send each elsewhere)
        layers = [replace(layer, forget=forget) for layer in layers]
    watch = Watch(model, layers[-1].forget, retain, text, options.prompts, by_fold=not plain)
    method = layered.method.fitted(model, fact_rows(trained(forget), model), options.batch_size)
    return [
        Stage(
            method,
            model,
            sources_of(model, method, layer, retain_text, options.seed, plain),
            watch,
            options,
            _goals(layered, options, layer, last=place == len(layers)),
        )
        for place, layer in enumerate(layers, start=1)
    ]


def sources_of(
    model: TransformerBridge,
    method: Method,
    layer: Layer,
    retain_text: Sequence[str] | None,
    seed: int,
    plain: bool,
) -> Sources:
    """Everything to train on, as tokens."""
    phrasings = trained(layer.forget)
    if method.alternative == "distractor":
        other = with_distractors(phrasings, seed)
    else:
        other = _refusals(method, phrasings, seed)
    kept, text = None, None
    if method.retain_weight:
        kept = fact_rows(
            trained(layer.retain),
            model,
            group=lambda fact: (fact.role, fact.fold if fact.role == "forget" else None),
            weight=lambda fact: layer.retain_weights[fact.fold if fact.role == "forget" else None],
        )
        text = None if retain_text is None else text_rows(retain_text, model, layer.forget.template.bos)

    def weight(fact: Fact) -> float:
        return 1.0 if plain else layer.forget_weights[fact.fold or 1]

    return Sources(
        forget=fact_rows(phrasings, model, group=lambda fact: None if plain else fact.fold, weight=weight),
        retain=kept,
        alternative=None if other is None else fact_rows(other, model, weight=weight),
        text=text,
    )


def _refusals(method: Method, phrasings: Facts, seed: int) -> Facts | None:
    """Refusals as answers, for a method that has some."""
    found = getattr(method, "refusals", None)
    return with_refusals(phrasings, found, seed) if found else None


def _goals(layered: Layered, options: Options, layer: Layer, last: bool) -> dict[str, float]:
    """The recall columns that must come down for the stage to end."""

    def level(stop: float | str, facts: Facts) -> float:
        return chance(facts) if isinstance(stop, str) else float(stop)

    goals = {}
    if layered.stage_stop is not None:
        goals[f"fold_{layer.number}_recall"] = level(layered.stage_stop, layer.forget.where(fold=layer.number))
    if options.stop is not None and last:
        goals["forget_recall"] = level(options.stop, layer.forget)
    return goals
