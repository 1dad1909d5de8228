"""The criteria, one file each, as importances of Torch-Pruning.

Importing this package imports and registers every file in it: a new criterion is one new file.
"""

import importlib
import pkgutil

from .base import CalibratedImportance, ChannelImportance
from .registry import CRITERIA, register_criterion, unregister_criterion

__all__ = ["CRITERIA", "CalibratedImportance", "ChannelImportance", "register_criterion", "unregister_criterion"]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
