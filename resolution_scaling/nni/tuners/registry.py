"""The tuners that searches find by their names."""

from __future__ import annotations

from typing import TypeVar

from .tuner import Tuner

Kind = TypeVar("Kind", bound=type[Tuner])

_tuners: dict[str, type[Tuner]] = {}


def register_tuner(tuner: Kind, *, replace: bool = False) -> Kind:
    """Let searches name a tuner. Can be used as a class decorator. `unregister_tuner` removes the tuner again.

    Args:
        tuner: the class, with a ``name``.
        replace: whether to replace a tuner that has this name already.

    Returns:
        The class.

    Raises:
        TypeError: it is not a subclass of `Tuner`.
        ValueError: its name is not an identifier, or another tuner has the same name.

    Example:
        >>> @register_tuner
        ... class Halving(Tuner):
        ...     name = "Halving"
    """
    if not (isinstance(tuner, type) and issubclass(tuner, Tuner)):
        raise TypeError(f"tuner is {tuner!r}; expected a subclass of Tuner (the class, not an instance)")
    name = getattr(tuner, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name of {tuner.__name__} is {name!r}; expected a word such as 'TPE'")
    if name.lower() in _tuners and not replace:
        raise ValueError(f"there is a tuner {name!r} already: choose another name, or pass replace=True")
    _tuners[name.lower()] = tuner
    return tuner


def unregister_tuner(name: str) -> type[Tuner]:
    """Remove a tuner from those that searches can name.

    Returns:
        The class; pass it to `register_tuner` to bring it back.

    Raises:
        ValueError: there is no tuner of this name.
    """
    if name.lower() not in _tuners:
        raise ValueError(f"unknown tuner {name!r}; known are {', '.join(map(repr, tuner_names()))}")
    return _tuners.pop(name.lower())


def find_tuner(name: str | None) -> Tuner:
    """The tuner of this name. NNI has tuners that are not registered here: for these, a plain `Tuner`.

    Args:
        name: a name, or None for a configuration that names its own class.
    """
    kind = _tuners.get(str(name).lower())
    if kind is not None:
        return kind()
    tuner = Tuner()
    tuner.name = str(name)
    return tuner


def tuner_names() -> list[str]:
    """The names of all registered tuners, sorted."""
    return sorted(tuner.name for tuner in _tuners.values())
