"""From the few levels of a pretrained model to any level in (0, 1).

Owns the weights of the step, linear in the known quantiles. Along the Student scores of student.py straight lines join
the quantiles, and the outermost lines continue into the tails: the tails keep the Student shape.
"""

from operator import attrgetter

import torch

from models.cache import cache_of_device, sized_cache
from models.forecast.student import table


@cache_of_device(sized_cache(32 << 20, attrgetter("nbytes")))
def weights(known: tuple[float, ...], wanted: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """[LONGEST_HORIZON, len(wanted), len(known)]: weights of the quantiles at ``known`` in the quantiles at ``wanted``.

    ``known`` has two levels or more, increasing. Known levels stay unchanged; sorted quantiles stay sorted.
    """
    knots: torch.Tensor = table(known, device)
    scores: torch.Tensor = table(wanted, device)
    right = torch.searchsorted(knots, scores.contiguous()).clamp(1, len(known) - 1)
    low, high = knots.gather(1, right - 1), knots.gather(1, right)
    share = (scores - low) / (high - low)
    found = scores.new_zeros(*scores.shape, len(known))
    found.scatter_(2, (right - 1)[:, :, None], (1 - share)[:, :, None])
    return found.scatter_(2, right[:, :, None], share[:, :, None])
