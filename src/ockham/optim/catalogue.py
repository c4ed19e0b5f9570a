"""What is known of the optimizers of pytorch-optimizer by their names, without importing any."""

from ockham.errors import UserError

#: What cannot be trained with here, by the reason.
REFUSED = {
    "asks for the loss again within a step": ("lbfgs", "alig", "bsam"),
    "takes the model apart itself": ("lomo", "adalomo", "adammini"),
    "wants hidden and other weights told apart: set optimizer=muon": (
        "muon", "adamuon", "adago", "normuon", "muonclip", "distributedmuon", "spectralsphere",
    ),
    "judges other weights than it trains: set optimizer=schedule_free_adamw": (
        "schedulefreesgd", "schedulefreeadamw", "schedulefreeradam", "splus",
    ),
    "works around another optimizer": ("magma",),
    "exchanges gradients between devices itself": ("demo",),
}  # fmt: skip

#: Whose licence, CC BY-NC-SA 4.0, does not allow commercial use.
NON_COMMERCIAL = ("fromage", "nero")


def key_of(name: str) -> str:
    """The name as the package looks it up: without case, and words not divided."""
    return name.lower().replace("_", "").replace("-", "")


def check_name(name: str | None) -> None:
    """Raises UserError where there is no name, or that of a class that cannot be trained with."""
    if name is None:
        raise UserError("optimizer=external is one of the optimizers of pytorch-optimizer: set optimizer.name=soap, or another")
    for reason, names in REFUSED.items():
        if key_of(name) in names:
            raise UserError(f"optimizer.name={name} is not possible, since it {reason}")
