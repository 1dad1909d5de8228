"""The tuners of searches, one file each, found by their names."""

from .anneal import Anneal
from .evolution import Evolution
from .grid_search import GridSearch
from .random_search import RandomSearch
from .registry import find_tuner, register_tuner, tuner_names, unregister_tuner
from .smac import SMAC
from .tpe import TPE
from .tuner import Implementation, Tuner

__all__ = ["Implementation", "Tuner", "find_tuner", "register_tuner", "tuner_names", "unregister_tuner"]

for _tuner in (Anneal, Evolution, GridSearch, RandomSearch, SMAC, TPE):
    register_tuner(_tuner)
