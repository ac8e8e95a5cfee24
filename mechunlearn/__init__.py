"""mechunlearn: was the knowledge erased, or only hidden?

before = mu.load("organism")
facts = mu.Facts.builtin("organism")
after = mu.unlearn(before, mu.NPO(beta=0.1), forget=facts.forget, retain=facts.retain).model
mu.dissect(before, after, facts.forget).plot()
"""

from importlib.metadata import version

import lazy_loader

# What there is stands in __init__.pyi, once. A room is imported when a name of it is first used: `mechunlearn --help`
# need not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = version("mechunlearn")
