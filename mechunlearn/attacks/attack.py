"""The verb: try a model again in many ways, and the model that never knew beside it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from ..checking import checked
from ..errors import NotFiniteError, UserError, check_whole
from ..evaluation import score_answers
from ..facts import Facts, FactSource, Tokens, check_passages, check_prompts, fact_of, tokenize, tokens_hash, with_roles
from ..models import Source, compare, fingerprint, load_to_ask
from ..models.forward import check_batch_size
from ..models.properties import context_of
from ..naming import apart, run_name
from ..runs import RunFolder, begun, check_run
from ..undoing import as_found
from .base import Attack, Attempt, Broken, Given
from .kinds.directions import AblateDirection, Steer
from .kinds.interpolate import Interpolate
from .kinds.noise import Noise
from .kinds.prompts import Prompts
from .kinds.quantise import Quantise
from .kinds.relearn import Relearn
from .result import Attacks
from .weights import LITTLE

log = logging.getLogger(__name__)

_LEARNING_RATES = {"adamw": (1e-4, 3e-4, 1e-3), "sgd": (0.03, 0.3)}
_GRID = tuple(
    Relearn(optimizer=optimizer, learning_rate=rate) for optimizer, rates in _LEARNING_RATES.items() for rate in rates
)
SUITES: dict[str, tuple[Attack, ...]] = {
    "quick": (Relearn(epochs=3), Prompts(), Quantise(scheme="int4")),
    "relearn": _GRID,
    "default": (
        *_GRID,
        Relearn(subsets="every"),
        Relearn(form="choice"),
        Relearn(trainable="mlp"),
        Relearn(trainable="lora", learning_rate=1e-3),
        *(Relearn(data=data) for data in ("near", "far", "text")),
        Prompts(),
        *(Quantise(scheme=scheme) for scheme in ("int8", "nf4", "int4")),
        Noise(),
        Interpolate(),
        AblateDirection(),
        Steer(),
    ),
}  # fmt: skip
ATTACKS: dict[str, Attack] = {
    attack.name: attack
    for attack in (Relearn(), Prompts(), Quantise(), Noise(), Interpolate(), AblateDirection(), Steer())
}


@as_found
@checked
def attack(
    model: Source,
    facts: FactSource,
    *,
    suite: str | Attack | Sequence[str | Attack] = "default",
    before: Source | None = None,
    never_knew: Source | None = None,
    text: Sequence[str] | None = None,
    prompts: str = "held_out",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    name: str | None = None,
    progress: bool = True,
) -> Attacks:
    """Attack a model that has unlearned, and ask again for what it was to forget.

    Every attack also runs on the model that never knew, where one is given: an attack teaches, and lucky guesses are
    no memory. What counts is by how much the one recovers more than the other. Prompts are tried on the model before as
    well: where that one does not answer, silence says nothing.

    Args:
        model: the model after unlearning, as `load` takes it; it is not changed.
        facts: as `Facts.of` takes them. Those with the role "forget" are asked for, or all, where none has a role; near
            and far ones serve benign relearning, and near ones show whether an attack ruined the model.
        suite: "default", "quick", "relearn" (its grid of optimisers and learning rates alone), or attacks by name
            (`ATTACKS`) or as they are, like `Relearn(learning_rate=1e-3)`.
        before: the model before unlearning, for attacks that need it, and for the scale.
        never_knew: a model trained in the same way without the forget facts.
        text: general text, for benign relearning.
        prompts: in which phrasings facts are asked: "held_out", "own" or "all" (`Facts.questions`).
        batch_size: rows in one forward pass when asking.
        device, dtype: where to put the models, and how precise they are to be; None: as `load` has it.
        seed: decides batches, noise and few-shot examples; both models meet the same.
        run: a run folder; a finished run of the same settings is opened, an interrupted one goes on after the last
            attack that was finished.
        name: what the run is called on pages and in tables; None: as its folder.
        progress: show progress bars.

    Raises:
        UserError: what `load` and `Facts.of` refuse; no forget facts, text that is one string, an unknown attack,
            models that do not match, an attack of the list that lacks what it needs. Of a named suite such attacks are
            left out, with a warning and in `about["settings"]["left_out"]`; it is an error where nothing is left.
    """
    check_run(run, "attacks")
    named = run_name(name)
    check_batch_size(batch_size)
    check_whole("seed", seed, 0)
    facts = Facts.of(facts)
    if all(fact.role is None for fact in facts):
        facts = with_roles(facts)
    if not len(facts.forget):
        raise UserError(f'{facts.name}: no facts to ask for; give those that were to be forgotten the role "forget"')
    check_prompts(prompts)
    check_passages(text, "text")
    listed(suite)  # a wrong name is told before any model is opened
    subjects = opened({"after": model, "before": before, "never-knew": never_knew}, device, dtype)
    given = Given(facts.forget, facts.retain, tuple(text or ()), subjects.get("before"), prompts, seed, progress)
    chosen, left_out = possible_attacks(suite, given)
    settings = {
        "attacks": [attack_settings(one) for one in chosen],
        "left_out": left_out,
        "facts": facts.hash,
        "prompts": prompts,
        "tokens": tokens_hash(
            tokenize(given.questions(), subjects["after"].tokenizer, context=context_of(subjects["after"]))
        ),
        "text": _hash(given.text) if given.text else None,
        "models": {name: fingerprint(one) for name, one in subjects.items()},
        "seed": seed,
    }
    with begun(run, "attacks", settings) as folder:
        if folder is not None and folder.finished:
            return Attacks.load(folder.path)
        for name, why in left_out.items():
            log.warning("attack %s left out: it needs %s", name, why)

        frames, asked = [_unattacked(subjects, given, batch_size)], [fact.id for fact in given.questions()]
        jobs = [(one, name) for one in chosen for name in subjects if name != "before" or one.on_before]
        for one, name in tqdm(jobs, desc="attacks", disable=not progress):
            compute = partial(_attacked, one, name, subjects[name], given, batch_size)
            frames.append(once(folder, f"{name}-{one.name}-{_hash(attack_settings(one))}", compute, asked))
        reached = {label(one): one.reaches(subjects["after"]) for one in chosen}
        notes = [note for one in chosen for note in one.notes(subjects["after"], given)]
        return finished(frames, settings, subjects, folder, reached, notes, named)


def opened(
    models: Mapping[str, Source | None], device: str | torch.device | None, dtype: str | torch.dtype | None
) -> dict[str, TransformerBridge]:
    """The models that are given, opened.

    Raises:
        UserError: as `load_to_ask`; one that does not match the model after.
    """
    found = {}
    for name, one in models.items():
        if one is not None or name == "after":
            found[name] = load_to_ask(cast(Source, one), device=device, dtype=dtype)
            if name != "after":
                _match(name, found[name], found["after"])
    return found


def finished(
    frames: Sequence[pd.DataFrame],
    settings: dict[str, Any],
    models: Mapping[str, TransformerBridge],
    folder: RunFolder | None,
    reached: Mapping[str, float | None],
    notes: Sequence[str],
    named: Mapping[str, str],
) -> Attacks:
    """The result, kept in the run folder where there is one."""
    names = apart({role: str(one.cfg.model_name) for role, one in models.items()})
    reached = {name: share for name, share in reached.items() if share is not None}
    told = [
        f"{name} reaches {share:.0%} of the parameters inside the blocks; what does not come back under it may do "
        "so once the others are reached"
        for name, share in reached.items() if share < LITTLE
    ]  # fmt: skip
    about = {"settings": settings, "models": names, "reached": reached, "notes": [*notes, *told], **named}
    found = Attacks(pd.concat(frames, ignore_index=True), about)
    if folder is not None:
        folder.finish(found.about, frame=found.frame)
    return found


def possible_attacks(
    suite: str | Attack | Sequence[str | Attack], given: Given
) -> tuple[tuple[Attack, ...], dict[str, str]]:
    """The attacks of a suite that can be run, and what the others lack.

    Raises:
        UserError: as `attack` says.
    """
    if isinstance(suite, str) and suite in SUITES:
        lacking = {label(one): need for one in SUITES[suite] if (need := one.needs(given)) is not None}
        possible = tuple(one for one in SUITES[suite] if label(one) not in lacking)
        if not possible:
            needed = ", or ".join(dict.fromkeys(lacking.values()))
            raise UserError(f"suite {suite!r}: none of its attacks can be run; they need {needed}")
        return possible, lacking
    chosen = []
    for one in listed(suite):
        if (need := one.needs(given)) is not None:
            raise UserError(f"attack {label(one)}: it needs {need}")
        chosen.append(one)
    if not chosen:
        raise UserError(f"no attack to run; attacks are {', '.join(ATTACKS)}")
    return tuple(dict.fromkeys(chosen)), {}  # asked for twice, an attack would count twice


def listed(suite: str | Attack | Sequence[str | Attack]) -> list[Attack]:
    """The attacks of this name, or of these names.

    Raises:
        UserError: no such suite or attack.
    """
    if isinstance(suite, str) and suite in SUITES:
        return list(SUITES[suite])
    found = []
    for one in [suite] if isinstance(suite, str | Attack) else suite:
        if isinstance(one, str) and one not in ATTACKS:
            raise UserError(f"unknown attack {one!r}; suites are {', '.join(SUITES)}, attacks {', '.join(ATTACKS)}")
        found.append(ATTACKS[one] if isinstance(one, str) else one)
    return found


def attack_settings(one: Attack) -> dict[str, Any]:
    """An attack as plain values, as they are read again from a run folder."""
    return json.loads(json.dumps({"attack": one.name, **asdict(one)}, default=str))


def label(one: Attack) -> str:
    """An attack in words: its name, and what differs from its defaults."""
    usual = asdict(type(one)())
    changed = ", ".join(f"{key}={value}" for key, value in asdict(one).items() if value != usual[key])
    return f"{one.name} ({changed})" if changed else one.name


def _match(name: str, other: TransformerBridge, model: TransformerBridge) -> None:
    try:
        compare(other, model)
    except UserError as error:
        message = str(error).replace("before and after cannot", f"{name} and after cannot")
        raise UserError(message.replace("before is", f"{name} is").replace("before has", f"{name} has")) from None


def _unattacked(models: Mapping[str, TransformerBridge], given: Given, batch_size: int) -> pd.DataFrame:
    """What the models say when nobody has attacked them."""
    questions = given.questions()
    return pd.concat(
        [ask(Attempt(model, questions), batch_size, "none", name) for name, model in models.items()],
        ignore_index=True,
    )


def _attacked(one: Attack, name: str, model: TransformerBridge, given: Given, batch_size: int) -> pd.DataFrame:
    """Every attempt of one attack on one model."""
    found = pd.concat(_attempted(one, name, model, given, batch_size), ignore_index=True)
    return found.assign(helped=found["helped"] | one.uses_before)


def _attempted(one: Attack, name: str, model: TransformerBridge, given: Given, batch_size: int) -> list[pd.DataFrame]:
    """What is answered at every attempt. One that breaks the model ends its part; the rows before it say what broke."""
    rows: list[pd.DataFrame] = []
    for found in one.attempts(model, given):
        broken = found if isinstance(found, Broken) else None
        if isinstance(found, Attempt):
            try:
                rows.append(ask(found, batch_size, one.name, name))
            except NotFiniteError as error:
                broken = Broken(found.setting, found.part, f"at step {found.step} {error}")
        if broken is not None:
            if not rows:  # not the attack: the model was broken before
                raise NotFiniteError(f"attack {label(one)} on {name}: {broken.why}")
            log.warning("attack %s on %s, %s: ended early; %s", label(one), name, broken.part, broken.why)
            told = ", ".join(filter(None, (broken.setting, broken.part)))
            rows[-1]["broke"] += f"; {told}: {broken.why}"
    for found in rows:
        found["broke"] = found["broke"].str.removeprefix("; ")
    return rows


def ask(attempt: Attempt, batch_size: int, name: str, model: str) -> pd.DataFrame:
    """What a model answers: one row a question, with the columns of `Attacks.frame`."""
    tokens = tokenize(attempt.facts, attempt.model.tokenizer, context=attempt.model.cfg.n_ctx)
    facts = list(attempt.facts)
    if attempt.given_tokens:
        tokens, kept = _without_first(tokens, attempt.given_tokens)
        facts = [facts[place] for place in kept]
    scores = score_answers(attempt.model, tokens, batch_size)
    return pd.DataFrame(
        {
            "attack": name,
            "setting": attempt.setting,
            "part": attempt.part,
            "step": attempt.step,
            "model": model,
            "fact": [fact_of(fact.id) for fact in facts],
            "question": [fact.id for fact in facts],
            "subject": pd.array([fact.subject for fact in facts], dtype="string"),
            "role": [fact.role for fact in facts],
            "fold": pd.array([fact.fold for fact in facts], dtype="Int64"),
            "correct": scores.correct.numpy(),
            "probability": scores.mean_logprob.double().exp().numpy(),
            "token_recall": scores.memorised.double().numpy(),
            "tokens": tokens.answers.sum(1).numpy(),
            "helped": attempt.given_tokens > 0,
            "broke": "",
        }
    )


def _without_first(tokens: Tokens, count: int) -> tuple[Tokens, list[int]]:
    """The rows with more answer tokens than `count`, these first ones no longer scored; and which rows they are."""
    first = tokens.answers & (tokens.answers.cumsum(1) <= count)
    kept = [place for place, row in enumerate(tokens.answers.sum(1).tolist()) if row > count]
    if not kept:
        raise UserError(f"no answer is longer than the {count} tokens that are given away")
    answers = tokens.answers & ~first
    predicts = answers.roll(-1, 1)  # the first column is never an answer, so nothing comes around
    return Tokens(tokens.ids, tokens.attention, predicts, answers, tokens.fact_ids)[kept], kept


def once(
    folder: RunFolder | None, unit: str, compute: Callable[[], pd.DataFrame], asked: Sequence[str]
) -> pd.DataFrame:
    """A unit of the run, of the questions asked: read where it is finished, else computed and kept."""
    return compute() if folder is None else folder.kept(unit, compute, asked)


def _hash(values: dict[str, Any] | Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]
