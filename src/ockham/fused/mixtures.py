"""How each member of a group mixes the samples of its batch, as it would alone."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ockham.fused.regularizers import StackedRegularizer
from ockham.run import Run


class MemberMixtures:
    """The mixtures of some members, drawn for every batch, and the states as tensors that all members go through alike."""

    def __init__(self, regularizers: Sequence[StackedRegularizer], runs: Sequence[Run], num_states: int, like: Tensor) -> None:
        """Shares have the dtype of `like` and are on its device."""
        self.regularizers = {str(index): each for index, each in enumerate(regularizers) if each.has("mixture")}
        self.runs, self.num_states, self.like = runs, num_states, like

    def draw(self, n: int) -> dict[str, dict[str, Tensor]]:
        """For a batch of n samples by the index of the regularizer: the `shares` (members, states) that samples keep of
        themselves in each state, 1 where they are not mixed, and the `partners` (members, n); (1, ...) where all are one.
        """
        return {index: self._draw(regularizer, n) for index, regularizer in self.regularizers.items()}

    def _draw(self, regularizer: StackedRegularizer, n: int) -> dict[str, Tensor]:
        batch = self.like.new_empty(n)
        nobody = (torch.ones(self.num_states, dtype=torch.float64), torch.arange(n, device=batch.device))
        drawn: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}  # by what decides it
        keys = []
        for row, run in enumerate(self.runs):
            member = regularizer.members.get(row)
            key = (None,) if member is None else (run.settings.seed, *member.numbers.values())
            keys.append(key)
            if key not in drawn:
                drawn[key] = nobody
                if member is not None:
                    mixture = member.mixture(batch, self.num_states, run.streams.stream(regularizer.name))
                    shares = nobody[0].index_fill(0, torch.tensor(mixture.state), mixture.share)
                    drawn[key] = shares, mixture.partner
        rows = keys if len(drawn) > 1 else keys[:1]
        return {
            "shares": torch.stack([drawn[key][0] for key in rows]).to(dtype=self.like.dtype, device=self.like.device),
            "partners": torch.stack([drawn[key][1] for key in rows]),
        }


def mixed(x: Tensor, shares: Tensor, partners: Tensor) -> Tensor:
    """x (members or 1, n, ...) mixed by shares (members or 1,) with the samples partners (members or 1, n)."""
    share = shares.view(-1, *[1] * (x.ndim - 1))
    return torch.where(share == 1, x, share * x + (1 - share) * _taken(x, partners))


def _taken(x: Tensor, rows: Tensor) -> Tensor:
    """The rows (members or 1, n) of x (members or 1, n, ...); as one index, whose gradient is a sum by it."""
    members, n = max(len(x), len(rows)), x.shape[1]
    first = torch.arange(len(x), device=x.device)[:, None] * n
    index = (first + rows).expand(members, n).flatten()
    return x.flatten(0, 1).index_select(0, index).view(members, *x.shape[1:])


def target_shares(mixture: Mapping[str, Tensor]) -> Tensor:
    """What samples keep of their target, (members or 1,)."""
    return mixture["shares"].amin(dim=1)
