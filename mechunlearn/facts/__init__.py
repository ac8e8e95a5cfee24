"""What a model may know: facts, the files they come in, and their way to tokens."""

import lazy_loader

# What there is stands in __init__.pyi, once. Reading a file of facts takes no torch, so that what is wrong with it is
# told at once; what makes tokens of them does.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
