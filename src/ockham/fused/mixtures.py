"""How each member of a group mixes the samples of its batch, as it would alone."""

from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor

from ockham.fused.regularizers import StackedRegularizer
from ockham.reg import Mixture
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
        drawn: dict[Hashable, Mixture] = {}  # members of one seed and with the same numbers share one
        keys: list[Hashable] = []
        for row, run in enumerate(self.runs):
            member = regularizer.members.get(row)
            keys.append(None if member is None else (run.settings.seed, *member.numbers.values()))
            if keys[-1] in drawn:
                continue
            if member is None:
                drawn[keys[-1]] = Mixture(0, 1.0, torch.arange(n, device=batch.device))
            else:
                drawn[keys[-1]] = member.mixture(batch, self.num_states, run.streams.stream(regularizer.name))
        mixtures = [drawn[key] for key in (keys if len(drawn) > 1 else keys[:1])]
        shares = [[each.share if state == each.state else 1.0 for state in range(self.num_states)] for each in mixtures]
        return {
            "shares": torch.tensor(shares, dtype=self.like.dtype, device=self.like.device),
            "partners": torch.stack([each.partner for each in mixtures]),
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
