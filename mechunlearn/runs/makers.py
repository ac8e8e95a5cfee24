"""Versions of what made a result."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

MAKERS = ("mechunlearn", "code", "torch", "transformers", "transformer-lens")  # of the numbers
PACKAGES = ("mechunlearn", "torch", "transformers", "transformer-lens", "peft", "numpy", "pandas")
PACKAGE = Path(__file__).parent.parent


def versions() -> dict[str, str]:
    """Versions of what made a result."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "code": _code()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def makers() -> dict[str, str]:
    """Versions of what decides about numbers."""
    return {name: found for name, found in versions().items() if name in MAKERS}


@cache
def _code() -> str:
    """A short hash of the package's own source: between two releases it changes and the version does not."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]
