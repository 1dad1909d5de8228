"""Model scaling, the rival of resolution scaling: narrower or shallower networks at equal FLOPs."""
