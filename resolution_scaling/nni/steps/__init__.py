"""Resolution scaling as a compressor of NNI 3.0."""
