"""The ground that both packages stand on: calls and copies of networks, shapes, figures."""
