"""The formats that facts come in: for each a function from records to facts, and a template."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from string import ascii_uppercase
from typing import Any

from ..errors import UserError
from .columns import mapped
from .fact import ROLES, Fact, Template
from .keys import right_choices
from .records import Record

log = logging.getLogger(__name__)

QUESTION = Template(prompt="Question: {prompt}\nAnswer:")
CONCEPT_QUESTION = Template(prompt="Question: {prompt}\n Answer:")


@dataclass(frozen=True)
class Format:
    """A reader, the template that its facts get, and the fields by which a record of this format is known."""

    read: Callable[[Sequence[Record]], list[Fact]]
    template: Template
    known_by: frozenset[str]
    uses: tuple[str, ...] = ()  # fields that its reader looks at; the others are left out, which is said


def own(records: Sequence[Record]) -> list[Fact]:
    """This project's format: the fields of `Fact`; prompt and answer (null: none yet) are required."""
    for record in records:
        if (role := record.fields.get("role")) is not None and role not in ROLES:
            raise UserError(
                f"{record.place}: the role {role!r} is none of {', '.join(ROLES)}; where the column means something "
                "else, say which columns hold a fact: columns={'prompt': …, 'answer': …}"
            )
    return [_fact(record, **_own_fields(record)) for record in records]


def _own_fields(record: Record) -> dict:
    if "answer" not in record.fields:
        raise record.missing("answer", "; where no reference exists yet, write null, in JSON or a list of dicts")
    return {
        "prompt": record.text("prompt"),
        "answer": None if record.fields["answer"] is None else record.text("answer"),
        **{name: record.texts(name) for name in ("paraphrases", "held_out", "distractors")},
        **{name: record.optional(name) for name in ("subject", "relation", "domain", "role", "paraphrased_answer")},
        "id": record.optional("id") or "",
        "fold": record.whole_number("fold"),
    }


def question_answer(records: Sequence[Record]) -> list[Fact]:
    """question, answer (TOFU, arXiv 2401.06121).

    `paraphrased_question` (made for testing) becomes a held-out prompt, `perturbed_answer` the distractors, and
    `paraphrased_answer` the right answer that the truth ratio compares them with.
    """
    return [
        _fact(
            record,
            prompt=record.text("question"),
            answer=record.text("answer"),
            id=record.optional("id") or record.optional("idx") or "",
            held_out=record.texts("paraphrased_question"),
            distractors=record.texts("perturbed_answer"),
            paraphrased_answer=record.optional("paraphrased_answer"),
        )
        for record in records
    ]


def multiple_choice(records: Sequence[Record], keys: str | None = None) -> list[Fact]:
    """question, choices, answer (WMDP, MMLU) asked openly: the choices are not shown.

    The answer is the text of the right choice, the other choices are the distractors.
    """
    facts = []
    for record, (choices, right) in zip(records, right_choices(records, keys), strict=True):
        wrong = tuple(choice for number, choice in enumerate(choices) if number != right)
        facts.append(_choice_fact(record, record.text("question"), choices[right], wrong))
    return facts


def multiple_choice_letters(records: Sequence[Record], keys: str | None = None) -> list[Fact]:
    """question, choices, answer with the choices listed in the prompt, as the benchmarks ask.

    The letter of the right choice is the answer, the other letters are the distractors.
    """
    facts = []
    for record, (choices, right) in zip(records, right_choices(records, keys), strict=True):
        letters = ascii_uppercase[: len(choices)]
        listing = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))
        wrong = tuple(letter for letter in letters if letter != letters[right])
        facts.append(_choice_fact(record, f"{record.text('question')}\n{listing}", letters[right], wrong))
    return facts


def _choice_fact(record: Record, prompt: str, answer: str, wrong: tuple[str, ...]) -> Fact:
    name, domain = record.optional("id") or "", record.optional("subject")
    return _fact(record, prompt=prompt, answer=answer, id=name, domain=domain, distractors=wrong)


def counterfact(records: Sequence[Record]) -> list[Fact]:
    """CounterFact (arXiv 2202.05262): the true target is the answer, the new one the distractor.

    The role is "forget". `paraphrase_prompts` become held-out prompts. Each of the
    `neighborhood_prompts` (other subjects with the same true target) becomes a fact of its own with the role
    "near" and an id such as "0/near/3".
    """
    facts = []
    for record in records:
        rewrite = record.inner("requested_rewrite")
        subject, prompt = rewrite.text("subject"), rewrite.text("prompt")
        if prompt.count("{}") != 1:
            raise rewrite.wrong("prompt", "a text with {} once, in the place of the subject")
        shared = {
            "answer": rewrite.inner("target_true").text("str").strip(),
            "distractors": (rewrite.inner("target_new").text("str").strip(),),
            "relation": rewrite.optional("relation_id"),
        }
        case = record.optional("case_id")
        case = case if case is not None else str(len(facts))
        prompts = record.texts("paraphrase_prompts")
        asked = prompt.replace("{}", subject)
        facts.append(_fact(record, prompt=asked, id=case, subject=subject, held_out=prompts, role="forget", **shared))
        facts += [
            _fact(record, prompt=near, id=f"{case}/near/{number}", role="near", **shared)
            for number, near in enumerate(record.texts("neighborhood_prompts"))
        ]
    return facts


def conceptvectors(records: Sequence[Record]) -> list[Fact]:
    """ConceptVectors (arXiv 2406.11614): questions only; the model's own answers become the reference.

    The questions about a concept have the role "forget" and ids such as "Poland/3"; its unrelated questions
    "far" and "Poland/unrelated/3". `subject` is the concept of the record in both, so that
    `facts.where(subject="Poland")` is one concept's test. White space around the questions is dropped.
    """
    facts = []
    times = Counter(record.text("Concept") for record in records)
    for record in records:
        concept = record.text("Concept")
        # A concept may have vectors at several places: then the place is part of the ids.
        place = f"@{record.optional('Layer')}.{record.optional('Dim')}" if times[concept] > 1 else ""
        for field, role, prefix in (
            ("QA", "forget", f"{concept}{place}"),
            ("unrelated_QA", "far", f"{concept}{place}/unrelated"),
        ):
            facts += [
                _fact(record, prompt=text.strip(), answer=None, id=f"{prefix}/{i}", subject=concept, role=role)
                for i, text in enumerate(record.texts(field))
            ]
    return facts


def _fact(record: Record, **values) -> Fact:
    try:
        return Fact(**values)
    except UserError as error:
        raise UserError(f"{record.place}: {error}") from None


CHOICE_FIELDS = ("question", "choices", "answer", "id", "subject")
# The order is the order of guessing: the more telling fields first.
FORMATS: dict[str, Format] = {
    "conceptvectors": Format(
        conceptvectors,
        CONCEPT_QUESTION,
        frozenset({"Concept", "QA"}),
        ("Concept", "QA", "unrelated_QA", "Layer", "Dim"),
    ),
    "counterfact": Format(
        counterfact,
        Template(),
        frozenset({"requested_rewrite"}),
        ("requested_rewrite", "case_id", "paraphrase_prompts", "neighborhood_prompts"),
    ),
    "multiple-choice": Format(multiple_choice, QUESTION, frozenset({"question", "choices"}), CHOICE_FIELDS),
    "multiple-choice-letters": Format(
        multiple_choice_letters, QUESTION, frozenset({"question", "choices"}), CHOICE_FIELDS
    ),
    "question-answer": Format(
        question_answer,
        QUESTION,
        frozenset({"question"}),
        ("question", "answer", "id", "idx", "paraphrased_question", "perturbed_answer", "paraphrased_answer"),
    ),
    "own": Format(own, Template(), frozenset({"prompt"}), tuple(field.name for field in fields(Fact))),
}


def interpret(
    records: Sequence[Record],
    format: str | None,
    columns: Mapping[str, str] | None = None,
    keys: str | None = None,
) -> tuple[list[Fact], Template, str]:
    """The facts in the records, their template, and the name of the format, which is guessed where None.

    The first record may be a header of the own format: {"template": {"prompt": ..., "answer": ...}}. `columns` and
    `keys` as in `Facts.read`. Fields that are left out are named in a warning.

    Raises:
        UserError: unknown format, nothing known that fits, or a record that the format's reader refuses.
    """
    if format is not None and format not in FORMATS:
        raise UserError(f"there is no format {format!r}; known are {', '.join(FORMATS)}")
    header = _header(records[0])
    if header is not None:
        if len(records) == 1:
            raise UserError(f"{records[0].place}: a template, but no fact after it")
        format, records = format or "own", records[1:]
    if columns is not None:
        if format not in (None, "own"):
            raise UserError(f"columns say what a file holds; format={format!r} says it otherwise: give one of the two")
        format, records = "own", mapped(records, columns)
    name = format or _guess(records[0])
    template = FORMATS[name].template if header is None else header
    if keys is not None and not name.startswith("multiple-choice"):
        raise UserError(f"keys say which choice of a multiple choice is right; this file was read as {name}")
    left = {field for record in records for field in record.fields if field not in FORMATS[name].uses}
    if left:
        log.warning("read as %s; fields that were left out: %s", name, ", ".join(sorted(left)))
    read: Any = FORMATS[name].read
    return (read(records, keys) if name.startswith("multiple-choice") else read(records)), template, name


def _header(record: Record) -> Template | None:
    if set(record.fields) != {"template"}:
        return None
    try:
        return replace(Template(), **record.inner("template").fields)
    except (TypeError, UserError) as error:
        raise UserError(f"{record.place}: not a template ({error})") from None


def _guess(record: Record) -> str:
    for name, format in FORMATS.items():
        if format.known_by <= set(record.fields):
            return name
    have = ", ".join(map(repr, record.fields)) or "no field"
    raise UserError(f"{record.place}: no known format has these fields: {have}; known are {', '.join(FORMATS)}")
