"""What a model may know: facts, the files they come in, and their way to tokens."""

from .fact import Fact, Template
from .facts import Facts, organism_text
from .tokens import Tokens, paper_positions, prompt_tokens, tokenize, tokenize_texts

__all__ = [
    "Fact",
    "Facts",
    "Template",
    "Tokens",
    "organism_text",
    "paper_positions",
    "prompt_tokens",
    "tokenize",
    "tokenize_texts",
]
