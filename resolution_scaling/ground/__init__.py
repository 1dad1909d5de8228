"""What both packages stand on: checks of arguments, calls and copies of networks, shapes, undoing, figures."""
