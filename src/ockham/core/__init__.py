"""Pure functions that every way of running shares: objective, metrics, parameter selection, choice of the epoch."""
