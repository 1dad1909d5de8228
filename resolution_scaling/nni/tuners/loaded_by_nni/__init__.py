"""Classes that NNI's tuner process loads by their files. NNI adds this folder to that process's path."""
