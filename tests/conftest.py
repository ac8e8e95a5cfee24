"""Run-time shape checks for the whole suite: every jaxtyping annotation is verified by beartype."""

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("mechunlearn", "beartype.beartype")

# How long an example takes says something about the machine, not about the code.
settings.register_profile("mechunlearn", deadline=None)
settings.load_profile("mechunlearn")
