"""The tasks of the study, one file each: a class with a ``name``, marked with `register_task`."""

import importlib
import pkgutil

from .task import TASKS, Images, Task, register_task, unregister_task

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["TASKS", "Images", "Task", "register_task", "unregister_task"]
