"""`mechunlearn methods`: what there is, told at once, also what is of one's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mechunlearn import unlearning
from mechunlearn.cli import listing

from ..test_cli import call


def test_methods_lists_all_with_defaults_and_papers() -> None:
    listed = call("methods")
    assert listed.exit_code == 0, listed.output
    for name in unlearning.METHODS:
        assert f"{name}  (arXiv {listing.LINES[name].paper or unlearning.METHODS[name].paper})" in listed.stdout
        assert listing.LINES[name].does in listed.stdout
    assert "beta=0.1" in listed.stdout and "--layered" in listed.stdout


def test_the_kept_list_of_methods_is_that_of_the_catalogue_and_is_told_without_torch(tmp_path: Path) -> None:
    assert listing.KEPT.read_text() == listing.listed(), "make format writes it anew"
    code = "import sys; from mechunlearn.cli import app; app(['methods'], standalone_mode=False)"
    code += "; sys.exit(str([name for name in ('torch', 'transformers', 'pandas') if name in sys.modules] or ''))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert told.stdout == listing.listed() and not told.stderr.strip()


def test_a_method_of_ones_own_is_listed_with_the_others(tmp_path: Path) -> None:
    own = tmp_path / "own_method_to_list.py"
    own.write_text(
        '"""Says nothing at all."""\n'
        "from mechunlearn.unlearning import METHODS, NPO\n"
        "class Mine(NPO):\n"
        "    name, paper = 'mine', '2026.00001'\n"
        "METHODS['mine'] = Mine()\n"
    )
    try:
        listed = call("--use", own, "methods")
        assert "mine  (arXiv 2026.00001)\n    Says nothing at all." in listed.stdout
    finally:
        unlearning.METHODS.pop("mine", None)
