"""The catalogue: every kept element of every released image, a column each, and questions asked of it."""
