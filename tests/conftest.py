"""Run-time shape checks for the whole suite: every jaxtyping annotation is verified by beartype."""

from jaxtyping import install_import_hook

install_import_hook("mechunlearn", "beartype.beartype")
