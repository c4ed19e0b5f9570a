"""What a user types: checked word by word before Hydra composes it, and explained where it is wrong. No torch here."""
