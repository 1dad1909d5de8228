"""The data of the recipes: digits, clothes, folders of images, and simulated holograms."""
