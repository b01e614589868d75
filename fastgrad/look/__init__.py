"""Functions to be looked at: the chain rule step by step, formulas."""
