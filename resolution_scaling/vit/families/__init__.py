"""The families of vision transformers that can be scaled, one file each; `registry.VIT_FAMILIES` lists them."""
