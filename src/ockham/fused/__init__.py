"""Many runs in one program: the plan, the stacked model, the engine. Knows nothing of Lightning."""

from ockham.fused.group import Member, finished_epochs_of, train_group

__all__ = ["Member", "finished_epochs_of", "train_group"]
