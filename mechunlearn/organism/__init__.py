"""The organism: a fictional world, and two small models of which one knows it and the other never knew."""

from .builder import build
from .world import PlantedFact, World, make_world

__all__ = ["PlantedFact", "World", "build", "make_world"]
