"""The tuners that searches find by their names."""

from __future__ import annotations

from .tuner import Tuner

_tuners: dict[str, type[Tuner]] = {}


def register_tuner(tuner: type[Tuner], *, replace: bool = False) -> None:
    """Let searches name a tuner. `unregister_tuner` is the way back.

    Args:
        tuner: the class, with a ``name``.
        replace: whether to replace a tuner that has this name already.

    Raises:
        TypeError: it is no subclass of `Tuner`, or has no name.
        ValueError: the name is taken.
    """
    if not isinstance(tuner, type) or not issubclass(tuner, Tuner) or not isinstance(getattr(tuner, "name", None), str):
        raise TypeError(f"tuner is {tuner!r}; expected a subclass of Tuner, itself, with a name such as 'TPE'")
    if tuner.name.lower() in _tuners and not replace:
        raise ValueError(f"there is a tuner {tuner.name!r} already: choose another name, or pass replace=True")
    _tuners[tuner.name.lower()] = tuner


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
