"""From the few levels that a pretrained model knows to any level in (0, 1).

Owns the weights of that step, which is linear in the known quantiles. Along the Student scores of student.py the
quantiles are joined by straight lines, and the outermost line goes on beyond them: the tail keeps the Student shape.
"""

from operator import attrgetter

import torch

from models.cache import sized_cache
from models.forecast.student import table


@sized_cache(32 << 20, attrgetter("nbytes"))
def weights(known: tuple[float, ...], wanted: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """[LONGEST_HORIZON, len(wanted), len(known)]: quantiles at ``wanted`` are these sums of those at ``known``.

    ``known`` has two levels or more, increasing. A level that is known is taken as it is; sorted quantiles stay sorted.
    """
    knots: torch.Tensor = table(known, device)
    scores: torch.Tensor = table(wanted, device)
    right = torch.searchsorted(knots, scores.contiguous()).clamp(1, len(known) - 1)
    low, high = knots.gather(1, right - 1), knots.gather(1, right)
    share = (scores - low) / (high - low)
    found = scores.new_zeros(*scores.shape, len(known))
    found.scatter_(2, (right - 1)[:, :, None], (1 - share)[:, :, None])
    return found.scatter_(2, right[:, :, None], share[:, :, None])
