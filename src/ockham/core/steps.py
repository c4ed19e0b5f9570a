"""What is known of the regularizers that act around an optimizer's step, without importing them: for the plan of a sweep and
the checks of the command line.
"""

from ockham.errors import UserError

#: Those that are judged by an average of the weights, with the hook `after_step`.
AVERAGING = ("ockham.reg.EMA", "ockham.reg.Lookahead", "ockham.reg.SWA")
#: Those that take the gradient in another place, with the hook `perturb`: two passes a step.
PERTURBING = ("ockham.reg.ASAM", "ockham.reg.SAM")
#: Those that change the gradient, with `transform_gradient` or `disturb_gradient`.
CHANGING_GRADIENTS = ("ockham.reg.GradientCentralization", "ockham.reg.GradientNoise")


def check_lookahead(inner_steps: int, total_steps: int) -> None:
    """Raises UserError where the run ends before its slow weights have moved."""
    if inner_steps > total_steps:
        raise UserError(
            f"reg.lookahead.steps={inner_steps} is beyond the {total_steps} steps of the run, which would be judged by its "
            f"initial weights: set it lower, or trainer.max_epochs higher"
        )


def check_swa(num_epochs: int) -> None:
    """Raises UserError where there is a single epoch, so that nothing is averaged."""
    if num_epochs == 1:
        raise UserError("reg=swa averages weights at the end of epochs, and the run has one: set trainer.max_epochs higher")
