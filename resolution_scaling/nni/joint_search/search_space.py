"""The search space of a joint search, in NNI's form: criterion and ratio of the pruning, and the resolution."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

NOTHING, KEEP, SCALE = "none", "keep", "scale"
"""Names of the choices: no pruning, the full resolution, a scaled resolution."""

RATIO = "sparsity"
"""NNI's name of the pruning ratio that both generations accept in a ``config_list``."""

RATIO_NAMES = (RATIO, "sparse_ratio")

Options = Sequence[float] | Mapping[str, Any]
"""Values to choose from, or a range in NNI's form: ``{"_type": "quniform", "_value": [0.2, 0.6, 0.1]}``."""

RANGES = {"choice": None, "randint": 2, "uniform": 2, "loguniform": 2, "quniform": 3, "qloguniform": 3}
"""NNI's types of variables that a search accepts, with the number of their arguments."""


@dataclass(frozen=True)
class Trial:
    """What one trial does, from the parameters that a tuner chose.

    Attributes:
        criterion: name of the pruning algorithm, or ``"none"``.
        ratio: the share of the channels that it removes, for ``config_list``; None if other parameters specify it.
        options: its other parameters, such as ``compression``.
        sizes: arguments of `resolution_scaling.scale_resolution`; empty where the resolution is kept.
    """

    criterion: str
    ratio: float | None
    options: dict[str, Any]
    sizes: dict[str, int]

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Trial:
        """From a tuner's choice in the space of `search_space`. NNI's ranges give floats; sizes are rounded."""
        pruning, resolution = dict(parameters["pruning"]), dict(parameters["resolution"])
        criterion = pruning.pop("_name")
        resolution.pop("_name")
        options = {name: round(v, 9) if isinstance(v, float) else v for name, v in pruning.items()}
        return cls(criterion, options.pop(RATIO, None), options, {name: round(v) for name, v in resolution.items()})

    @property
    def prunes(self) -> bool:
        """Whether anything is pruned."""
        return self.criterion != NOTHING

    def config_list(self, layers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """NNI's ``config_list``: the layers, with the ratio in each entry that does not exclude them."""
        ratio = {} if self.ratio is None else {RATIO: self.ratio}
        return [dict(layer) if layer.get("exclude") else {**layer, **ratio} for layer in layers]

    @property
    def pruning_text(self) -> str:
        """For tables: ``"l1 0.5"``, ``"spatial_mask compression=4"``, ``"none"``."""
        ratio = [] if self.ratio is None else [f"{self.ratio:g}"]
        return " ".join([self.criterion, *ratio, *(f"{name}={_text(v)}" for name, v in self.options.items())])

    @property
    def resolution_text(self) -> str:
        """For tables: ``"160 px"``, ``"grid 11"``, ``"keep"``."""
        units = {"size": "{} px", "grid": "grid {}", "patch_size": "patch {} px"}
        return ", ".join(units[name].format(v) for name, v in self.sizes.items()) or KEEP


def search_space(
    pruning: Mapping[str, Options | Mapping[str, Options]], sizes: Mapping[str, Options]
) -> dict[str, dict[str, Any]]:
    """NNI's search space: a choice of criteria, each with its ratios, and a choice of resolutions.

    Args:
        pruning: the ratios by criterion; or the values by criterion and parameter.
        sizes: the values by name of `resolution.SIZES`.

    Raises:
        TypeError, ValueError: there is nothing to choose, or a range is not one of NNI's. The text names the key.
    """
    criteria = [{"_name": NOTHING}, *(_criterion(name, options) for name, options in pruning.items())]
    given = {name: _sizes(name, options) for name, options in sizes.items() if len(options)}
    resolutions = [{"_name": KEEP}, *([{"_name": SCALE, **given}] if given else [])]
    if len(criteria) == len(resolutions) == 1:
        raise ValueError("there is nothing to search: give pruning={...}, or size, grid or patch_size, or both")
    return {
        "pruning": {"_type": "choice", "_value": criteria},
        "resolution": {"_type": "choice", "_value": resolutions},
    }


def corners(space: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters at the ends of all ranges and at all choices: the smallest networks are among them."""
    branches = (list(_ends_of_branch(branch)) for branch in (space["pruning"], space["resolution"]))
    for pruning, resolution in itertools.product(*branches):
        yield {"pruning": pruning, "resolution": resolution}


def _criterion(name: str, options: Options | Mapping[str, Options]) -> dict[str, Any]:
    if name in (NOTHING, "resolution"):
        raise ValueError(
            f"pruning has the key {name!r}; expected names of pruning algorithms: {NOTHING!r} is always among the "
            "choices, and pass resolutions as size, grid or patch_size"
        )
    by_parameter = isinstance(options, Mapping) and "_type" not in options
    if by_parameter and not options:
        raise ValueError(f"pruning[{name!r}] is empty; expected ratios such as [0.3, 0.5], or {{parameter: values}}")
    given = cast(Mapping[str, Options], options if by_parameter else {RATIO: options})
    branch: dict[str, Any] = {"_name": name}
    for parameter, values in given.items():
        spec = _spec(values, f"pruning[{name!r}]" + (f"[{parameter!r}]" if by_parameter else ""))
        parameter = RATIO if parameter in RATIO_NAMES else parameter
        if parameter == RATIO and not all(_is_number(value) and 0 < value < 1 for value in _ends(spec)):
            raise ValueError(f"pruning[{name!r}] is {values!r}; expected ratios between 0 and 1, both excluded")
        branch[parameter] = spec
    return branch


def _sizes(name: str, options: Options) -> dict[str, Any]:
    """All values of a range as a choice: they are whole and few, and each can be checked before the search."""
    spec = _spec(options, name)
    kind, values = spec["_type"], spec["_value"]
    if kind == "quniform":
        low, high, step = values
        values = [min(max(i * step, low), high) for i in range(round(low / step), round(high / step) + 1)]
    elif kind == "randint":
        values = range(*values)
    if kind not in ("choice", "quniform", "randint") or not all(_is_number(v) and v == round(v) > 0 for v in values):
        raise ValueError(f"{name} is {options!r}; expected whole numbers above 0, such as [128, 160]")
    return {"_type": "choice", "_value": [round(value) for value in dict.fromkeys(values)]}


def _spec(options: Options, where: str) -> dict[str, Any]:
    """A variable in NNI's form: a sequence becomes a ``choice``."""
    if not isinstance(options, Mapping):
        if isinstance(options, (str, bytes)) or not isinstance(options, Iterable):
            raise TypeError(f"{where} is {options!r}; expected a list of values, such as [0.3, 0.5]")
        options = {"_type": "choice", "_value": list(options)}
    kind, values = options.get("_type"), options.get("_value")
    if kind not in RANGES or not isinstance(values, (list, tuple)) or not values:
        raise ValueError(
            f"{where} is {dict(options)!r}; expected values, or one of NNI's ranges of type {', '.join(RANGES)}, such "
            "as {'_type': 'quniform', '_value': [0.2, 0.6, 0.1]}"
        )
    if RANGES[kind] is not None:
        ordered = len(values) == RANGES[kind] and all(map(_is_number, values)) and values[0] < values[1]
        if not ordered or (len(values) == 3 and values[2] <= 0):
            raise ValueError(
                f"{where}: {kind} takes [low, high{', step' if RANGES[kind] == 3 else ''}], not {values!r}"
            )
    return {"_type": kind, "_value": list(values)}


def _ends(spec: Mapping[str, Any]) -> list[Any]:
    kind, values = spec["_type"], spec["_value"]
    if kind == "choice":
        return values
    return [values[0], values[1] - 1 if kind == "randint" else values[1]]


def _ends_of_branch(branch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for option in branch["_value"]:
        names = [name for name in option if name != "_name"]
        for values in itertools.product(*(_ends(option[name]) for name in names)):
            yield {"_name": option["_name"], **dict(zip(names, values, strict=True))}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
