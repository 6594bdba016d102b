"""Criteria: how much a unit matters. Each is one small file, formula first."""

from . import batchnorm, geometric, lamp, magnitude, random
from .criterion import Criterion, criteria, score

__all__ = ["Criterion", "batchnorm", "criteria", "geometric", "lamp", "magnitude", "random", "score"]
