"""What `TrialExperiment` runs in the guide."""


class MyClass:
    """What trials work on."""


def measure(module_class, parameters):
    """The wider the better."""
    return {"default": parameters["width"] / 32, "name": module_class.__name__}
