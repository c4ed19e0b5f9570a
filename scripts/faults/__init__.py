"""What can go wrong around a run, by parts: each module draws its trials from a seed, and says which did not survive."""
