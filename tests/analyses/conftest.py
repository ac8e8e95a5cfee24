"""The scripts of `analyses/`, to be imported as they import each other."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def scripts():
    """The folder of the scripts, which worker processes look in as well."""
    folder = Path(__file__).parents[2] / "analyses"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", str(folder))
        yield folder
