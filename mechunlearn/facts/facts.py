"""A set of facts: read from a file or the package, filtered by role and fold, saved again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, overload

import pandas as pd

from ..checking import checked, shown as shown_value
from ..errors import UserError
from ..reading import named, there
from ..runs import write_atomically
from ..showing import ROWS, shown
from .embedded import BUILT_IN, organism_records
from .fact import Fact, Template, check_text
from .phrasings import check_prompts, phrasings, refuse_marks
from .readers import FORMATS, interpret
from .records import read_records
from .tables import hub_rows, is_table, on_hub, rows, saved_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True, init=False, repr=False)
class Facts(Sequence[Fact]):
    """Facts in their order, with their name, the format they came in and the template that suits them.

    Immutable. Facts without an id are numbered "0", "1", ... by their place.

    Args:
        items: `Fact`s; or rows, which are read as those of a file (`Facts.read`): a list of dicts, a table of pandas or
            Arrow, a data set of Hugging Face.
        name: what they are called in results.
        format, columns, keys: of rows, as `Facts.read` has them.
        template: how they are asked; None: as suits the format.

    Raises:
        UserError: two facts have the same id; rows that cannot be read as facts, with row and field.
    """

    items: tuple[Fact, ...]
    name: str
    format: str
    template: Template

    formats = tuple(FORMATS)

    @checked
    def __init__(
        self,
        items: Any,
        *,
        name: str = "facts",
        format: str | None = None,
        columns: Mapping[str, str] | None = None,
        keys: str | None = None,
        template: Template | None = None,
    ) -> None:
        check_text("these facts", "name", name)
        items, taken, suits = _items_of(items, format, columns, keys)
        if strange := [item for item in items if not isinstance(item, Fact)]:
            raise UserError(f"{name}: facts are Fact(prompt, answer) each, not {shown_value(strange[0])}")
        numbered = tuple(fact if fact.id else replace(fact, id=str(i)) for i, fact in enumerate(items))
        places: dict[str, int] = {}
        for place, fact in enumerate(numbered, start=1):
            if places.setdefault(fact.id, place) != place:
                raise UserError(f"{name}: facts {places[fact.id]} and {place} have the same id {fact.id!r}")
        values = {"items": numbered, "name": name, "format": taken, "template": template or suits}
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @classmethod
    @checked
    def read(
        cls,
        source: str | Path,
        format: str | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        keys: str | None = None,
        subset: str | None = None,
        split: str | None = None,
    ) -> Facts:
        """Facts from a file, a data set's folder or the hub, or built-in ones ("organism", "organism:entities").

        A file is JSON lines, a JSON array, an object around one list, CSV, TSV or Parquet, any text of them packed by
        gzip; a folder is what `save_to_disk` of Hugging Face's data sets wrote; what is neither here and reads like
        "locuslab/TOFU:forget01" is looked for on the hub. Where `format` is None it is guessed from the fields;
        `.format` says which was taken. Known formats: `Facts.formats`. What is left out of a file is named in a
        warning.

        Args:
            columns: which column holds what, for any other file: {"prompt": "query", "answer": "gt"}; a column inside
                others is written with dots.
            keys: how a multiple choice says which choice is right: "text", "letter", "number from 0" or "number from
                1"; None: the one that fits all records.
            subset, split: of a data set; on the hub, they can stand in the name: "owner/name:subset:split".

        Raises:
            UserError: with the file, line and field, for anything that cannot be read as facts.
        """
        if not isinstance(source, str | Path):
            raise UserError(f"Facts.read: source is the name of a file or of built-in facts, not {shown_value(source)}")
        path, hub = Path(source), on_hub(str(source), subset, split)
        if hub is None and (subset is not None or (split is not None and not path.is_dir())):
            raise UserError(
                f"{named(path)}: subset= and split= say which part of a data set on the hub, split= also which of a "
                "folder's; leave them out"
            )
        if str(source) in BUILT_IN:
            name, _, forget = str(source).partition(":")
            return cls.builtin(name, forget=forget or "domain")
        if path.suffix == "" and not there(path) and hub is None:
            raise UserError(f"there is no file {named(path)}; built-in facts are {', '.join(BUILT_IN)}")
        if hub is not None:
            path, records = Path(hub[0]), hub_rows(*hub)
        else:
            records = saved_rows(path, split) if path.is_dir() else read_records(path)
        items, template, taken = interpret(records, format, columns, keys)
        facts = cls(items, name=path.name if path.is_dir() or hub else path.stem, format=taken, template=template)
        log.info("%s: %d facts, read as %s", path, len(facts), taken)
        return facts

    @classmethod
    @checked
    def of(cls, source: FactSource, role: str | Sequence[str] | None = None) -> Facts:
        """What every verb takes for facts: a `Facts` as it is; a file, a name or rows are read.

        Args:
            source: a `Facts`, or what `Facts.read` or `Facts` take: a file, a data set, a list of dicts, a table.
            role: of what is read, where its facts have roles, only those with this role, or one of these.

        Raises:
            UserError: as `read`; no fact of that role; something else than these.
        """
        if isinstance(source, Facts):
            refuse_marks(source.name, source)
            return source
        rows_given = isinstance(source, list | tuple) and not any(isinstance(item, Fact) for item in source)
        if isinstance(source, str | Path | Mapping) or rows_given or is_table(source):
            found = cls.read(source) if isinstance(source, str | Path) else cls(source)
            refuse_marks(found.name, found)
            if role is None or all(fact.role is None for fact in found):
                return found
            chosen = found.where(role=role if isinstance(role, str) else tuple(role))
            if not len(chosen):
                raise UserError(f"{found.name}: no fact has the role {role!r}")
            return chosen
        raise UserError(
            f"{type(source).__name__}: facts are a Facts, a file, a built-in name, a table or a list of dicts; from a "
            "list of facts: Facts([Fact(…), …])"
        )

    @classmethod
    @checked
    def builtin(cls, name: str = "organism", forget: str = "domain") -> Facts:
        """The facts of the embedded organism, with roles and folds for one of its two forget sets.

        Args:
            name: "organism".
            forget: "domain" (all facts of one domain) or "entities" (some among others of their kind).

        Raises:
            UserError: unknown name or forget set.
        """
        items, template, taken = interpret(organism_records(name, forget), "own")
        return cls(items, name=f"{name}:{forget}", format=taken, template=template)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Fact: ...
    @overload
    def __getitem__(self, index: slice) -> Facts: ...
    def __getitem__(self, index: int | slice) -> Fact | Facts:
        return self.with_items(self.items[index]) if isinstance(index, slice) else self.items[index]

    def __repr__(self) -> str:
        roles = {role: len(self.where(role=role)) for role in ("forget", "near", "far")}
        counts = "".join(f", {n} {role}" for role, n in roles.items() if n)
        return f"Facts({self.name}: {len(self)} facts{counts}; format {self.format})"

    def _repr_html_(self) -> str:
        names = ("id", "prompt", "answer", "role", "fold")
        table = pd.DataFrame([{name: getattr(fact, name) for name in names} for fact in self.items[:ROWS]])
        return shown(repr(self), table.dropna(axis="columns", how="all"), of=len(self))

    @property
    def forget(self) -> Facts:
        """The facts with the role "forget"; none where nobody gave roles."""
        return self.where(role="forget")

    @property
    def near(self) -> Facts:
        """The facts to keep that share the forget set's domain."""
        return self.where(role="near")

    @property
    def far(self) -> Facts:
        """The facts to keep of other domains."""
        return self.where(role="far")

    @property
    def retain(self) -> Facts:
        """The facts to keep, near and far."""
        return self.where(role=("near", "far"))

    @property
    def folds(self) -> dict[int, Facts]:
        """The facts of each fold, by its number; facts without a fold are in none."""
        numbers = sorted({fact.fold for fact in self.items if fact.fold is not None})
        return {number: self.where(fold=number) for number in numbers}

    @checked
    def questions(self, prompts: str = "held_out") -> Facts:
        """One fact a question: what a model is asked, in the phrasings that are named.

        Args:
            prompts: "held_out" (those that training must not show; a fact that has none is asked by its own prompt),
                "own" (each fact's prompt), or "all" (its prompt, its paraphrases and its held-out phrasings).

        Ids tell a phrasing from its fact ("12" is asked as "12", "12#p0", "12#h0"); `fact_of` gives the fact's again.

        Raises:
            UserError: no such phrasings.
        """
        check_prompts(prompts)
        return self.with_items(
            replace(fact, prompt=prompt, id=fact.id + mark, paraphrases=(), held_out=())
            for fact in self.items
            for mark, prompt in phrasings(fact, prompts)
        )

    @property
    def hash(self) -> str:
        """The SHA-256 of the facts and the template (not of the name), in hexadecimal."""
        chat = ("system", "arguments")  # of a conversation: where there are none, the hash is that of earlier versions
        template = {name: value for name, value in asdict(self.template).items() if name not in chat or value}
        items = [{name: value for name, value in asdict(fact).items() if name != "paraphrased_answer" or value}
                 for fact in self.items]  # fmt: skip
        content = [template, *items]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def where(self, **wanted: Any) -> Facts:
        """The facts whose fields have these values; a tuple, list or set means any of them.

        Raises:
            UserError: a fact has no such field.
        """
        for field in wanted:
            if field not in Fact.__dataclass_fields__:
                known = ", ".join(f.name for f in fields(Fact))
                raise UserError(f"a fact has no field {field!r}; it has {known}")
        allowed = {
            field: value if isinstance(value, tuple | list | set) else (value,) for field, value in wanted.items()
        }
        return self.with_items(
            fact for fact in self.items if all(getattr(fact, field) in any_of for field, any_of in allowed.items())
        )

    @checked
    def with_answers(self, answers: Sequence[str]) -> Facts:
        """The same facts with these answers, one each.

        Raises:
            UserError: another number of answers than facts, or an empty answer.
        """
        if isinstance(answers, str):
            raise UserError(f"answers must be a list of texts, one a fact, not the text {shown_value(answers)}")
        if len(answers) != len(self):
            raise UserError(f"{self.name}: {len(answers)} answers for {len(self)} facts")
        return self.with_items(replace(fact, answer=text) for fact, text in zip(self.items, answers, strict=True))

    @checked
    def save(self, path: str | Path) -> None:
        """Write JSON lines in the own format; a template other than the default becomes the first line.

        Raises:
            UserError: the file cannot be written; nothing is left of it, and what was there before stays. A name that
                `read` would take for another kind of file; no facts.
        """
        if (ending := Path(path).suffix.lower()) in (".csv", ".tsv", ".parquet", ".gz"):
            raise UserError(f"{named(path)}: facts are kept as JSON lines, not as {ending}; name it like facts.jsonl")
        if not len(self):
            raise UserError(f"{named(path)}: there are no facts to keep, and a file without any cannot be read")
        rows: list[dict[str, Any]] = [] if self.template == Template() else [{"template": asdict(self.template)}]
        rows += [
            {key: value for key, value in asdict(fact).items() if key == "answer" or value not in (None, ())}
            for fact in self.items
        ]
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())

    @checked
    def with_items(self, items: Iterable[Fact]) -> Facts:
        """Other facts under the same name, format and template."""
        return Facts(items, name=self.name, format=self.format, template=self.template)


def _items_of(
    items: Any, format: str | None, columns: Mapping[str, str] | None, keys: str | None
) -> tuple[tuple[Fact, ...], str, Template]:
    """Facts as they are, or those in rows; their format and the template that suits it."""
    if not is_table(items) and not isinstance(items, Mapping):
        if isinstance(items, str | bytes) or not isinstance(items, Iterable):
            raise UserError(f"Facts: items must be facts, rows or a table, not {shown_value(items)}; files: Facts.read")
        items = tuple(items)
        if not items or not isinstance(items[0], Mapping):
            if columns is not None or keys is not None:
                raise UserError("columns= and keys= say how rows are read; these are facts already: leave them out")
            return items, format or "own", Template()
    found, template, taken = interpret(rows(items), format, columns, keys)
    return tuple(found), taken, template


FactSource = Facts | str | Path | pd.DataFrame | Iterable[Mapping[str, Any]]
"""What every verb takes for facts (`Facts.of`)."""
