"""Model scaling, the rival of resolution scaling: narrower or shallower networks with equal FLOPs."""
