"""Tuners that NNI loads from here in a process of its own, which has ten seconds to start: nothing imports torch."""
