"""Functions made of functions: derivatives of all kinds, rules of the user's, lanes."""
