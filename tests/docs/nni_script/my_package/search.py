"""What `TrialExperiment` runs in the guide."""


class MyClass:
    """The subject."""


def measure(subject, parameters):
    """The wider the better."""
    return {"default": parameters["width"] / 32, "name": subject.__name__}
