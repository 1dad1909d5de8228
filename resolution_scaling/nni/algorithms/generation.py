"""Which generation of NNI is installed."""

import nni

NNI_3 = int(nni.__version__.split(".")[0]) >= 3
"""True for NNI 3.0, False for NNI 2.10.1."""
