"""What is asked, and in which form: the options that every command which asks a model has, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UserError
from .inputs import columns_of
from .settings import assignments

if TYPE_CHECKING:
    from ..facts import Facts, Template

TemplateOption = Annotated[
    str | None,
    typer.Option(
        help="How facts are put: plain, question, chat, tofu-llama3, tofu-phi3, tofu-llama2, tofu-llama2-chat, or a "
        "text with {prompt} in it. [default: as suits the facts]",
    ),
]
ChatOption = Annotated[bool, typer.Option("--chat", help="Ask in the tokenizer's chat template.")]
SystemOption = Annotated[str | None, typer.Option(help="The system turn of the chat.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--template-set", help="What else the chat template is given: enable_thinking=false."),
]
TokenizerOption = Annotated[str | None, typer.Option("--tokenizer", help="For a checkpoint that has none of its own.")]
EitherFactsOption = Annotated[str | None, typer.Option("--facts", help="Facts with roles, or the built-in 'organism'.")]
ForgetOption = Annotated[
    str | None, typer.Option(help="Facts to forget, in place of --facts: their roles do not matter.")
]
RetainOption = Annotated[str | None, typer.Option(help="Facts to keep, beside --forget-facts.")]


@dataclass(frozen=True)
class Form:
    """How facts are put to a model, as the line says it."""

    template: str | None
    chat: bool
    system: str | None
    given: list[str] | None

    def of(self, facts: Facts) -> Facts:
        """The facts in this form.

        Raises:
            UserError: no such template; settings that are none.
        """
        from ..facts import Facts

        return Facts(facts, name=facts.name, format=facts.format, template=self._template(facts.template))

    def _template(self, suits: Template) -> Template:
        from ..facts import Template

        found = suits
        if self.template is not None and "{prompt}" in self.template:
            found = Template(prompt=self.template.replace("\\n", "\n"), chat=self.converses)
        elif self.template is not None:
            found = Template.named(self.template)
        if self.converses:
            if not found.chat and self.template is not None:
                raise UserError(
                    f"--template {self.template} is no chat, so --chat, --system and --template-set have no place in "
                    "it; leave them out, or take --template chat"
                )
            if not found.chat:
                found = Template(chat=True)
            arguments = found.arguments | assignments(self.given)
            found = replace(found, system=found.system if self.system is None else self.system, arguments=arguments)
        return found

    @property
    def converses(self) -> bool:
        """Whether the line asks for the tokenizer's chat template."""
        return self.chat or self.system is not None or bool(self.given)

    @property
    def words(self) -> list[str]:
        """The same, to be typed again."""
        words = [] if self.template is None else ["--template", self.template]
        words += ["--chat"] if self.chat else []
        words += [] if self.system is None else ["--system", self.system]
        return words + [word for one in self.given or () for word in ("--template-set", one)]


def facts_with_roles(
    form: Form,
    facts: str | None,
    forget: str | None,
    retain: str | None,
    format: str | None,
    columns: str | None,
    keys: str | None,
) -> Facts:
    """From one file with roles, or from one to forget and one to keep, in this form.

    Raises:
        UserError: neither or both; two that are asked differently, where the line names no form; a file that cannot be
            read as facts.
    """
    from ..facts import Facts, with_roles

    if (facts is None) == (forget is None):
        raise UserError("give either --facts FILE with roles, or --forget-facts FILE (and --retain-facts FILE)")
    if facts is not None and retain is not None:
        raise UserError("--retain-facts stands beside --forget-facts; --facts has roles for both")
    read = [
        None if file is None else form.of(Facts.read(file, format, columns=columns_of(columns), keys=keys))
        for file in (facts, forget, retain)
    ]
    return read[0] if read[0] is not None else with_roles(*filter(None, read[1:]))


def to_ask_again(
    source: str,
    form: Form,
    *,
    whole: bool,
    format: str | None,
    columns: str | None,
    keys: str | None,
    tokenizer: str | None,
) -> list[str]:
    """The options that ask for the facts of this file as they were asked; `whole`: all of it, whatever the roles."""
    given = {"--format": format, "--columns": columns, "--keys": keys, "--tokenizer": tokenizer}
    rest = [word for option, value in given.items() if value is not None for word in (option, value)]
    return ["--facts", source, *form.words, *rest, *(["--role", "all"] if whole else [])]


def opened(model: str | None, tokenizer: str | None, device: str | None, dtype: str | None) -> Any:
    """The model's name as it is, or the model with another tokenizer than its own."""
    if model is None or tokenizer is None:
        return model
    from ..models import load

    return load(model, tokenizer=tokenizer, device=device, dtype=dtype)
