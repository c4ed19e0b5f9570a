"""What can go wrong around a run, by parts: each draws trials from a seed, and says which of them did not survive."""
