"""Criteria: how much a unit matters. Each is one small file, formula first."""

from . import activation, batchnorm, geometric, hessian, lamp, magnitude, random, taylor
from .criterion import Criterion, criteria, normalised, view_of

__all__ = [
    "Criterion",
    "activation",
    "batchnorm",
    "criteria",
    "geometric",
    "hessian",
    "lamp",
    "magnitude",
    "normalised",
    "random",
    "taylor",
    "view_of",
]
