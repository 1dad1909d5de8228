"""Classes that NNI's tuner process loads by their files. NNI puts this folder first on the path of that process."""
