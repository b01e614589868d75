"""Functions as people write them, by theme; README.md has the list, tests/worlds.py runs them."""
