"""The networks of the recipes: a U-Net and its digit classifier, and a small ResNet."""
