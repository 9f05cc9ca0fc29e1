"""Synthetic people, images and hostile files, with the truth about them: demo, tests and benchmarks share them."""
