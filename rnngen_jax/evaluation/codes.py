"""How a split's images use the codes of a codebook."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Codebooks of which fewer than this share are in use, of those that could be, have collapsed.
COLLAPSED = 0.1


class CodeUsage(NamedTuple):
    """Use of the codes by the images of a whole split.

    Attributes:
      perplexity: exp of the entropy of how frequent the codes are; of several depths, of their mean
        entropy. The number of codes K if all are equally frequent.
      share: the share of all codes that are used at all.
      dead: the number of codes that are not.
      possible: the most codes that could have been used: K, or as many as there were places.
    """

    perplexity: float
    share: float
    dead: int
    possible: float

    def metrics(self) -> dict[str, float]:
        """Scalars by name, for metrics.jsonl and evaluation.json."""
        return {
            "perplexity": self.perplexity,
            "codes_used": self.share,
            "dead_codes": float(self.dead),
        }

    @property
    def collapsed(self) -> bool:
        """Whether few of the codes that could be used are."""
        return self.share < COLLAPSED * self.possible

    def warning(self, level: str = "") -> str:
        """The line that warns of a collapse; `level` is the name of one of several levels."""
        which = f"{level} codebook" if level else "codebook"
        return (
            f"{which} collapse: {self.share:.1%} of the codes are in use, and as many as "
            f"{self.possible:.0%} could be; raise the option revive of the codebook, or use fsq."
        )


def counts(indices: np.ndarray, codes: int) -> np.ndarray:
    """How often each code is used at each depth, int64 `[depth, K]`, from indices `[..., depth]`.

    Negative indices stand for no code.
    """
    flat = indices.reshape(-1, indices.shape[-1])
    return np.stack([np.bincount(column[column >= 0], minlength=codes) for column in flat.T])


def usage_of(each: np.ndarray) -> CodeUsage:
    """The use of codes from `counts`, summed over a split."""
    codes = each.shape[1]
    entropies = [_entropy(row / max(row.sum(), 1)) for row in each]
    dead = int((each == 0).sum())
    most = np.minimum(each.sum(1), codes).sum() / each.size
    return CodeUsage(float(np.exp(np.mean(entropies))), 1 - dead / each.size, dead, float(most))


def usage(indices: np.ndarray, codes: int) -> CodeUsage:
    """The use of codes by all indices `[..., depth]`."""
    return usage_of(counts(indices, codes))


def _entropy(p: Sequence[float] | np.ndarray) -> float:
    """In nats."""
    p = np.asarray(p)[np.asarray(p) > 0]
    return float(-(p * np.log(p)).sum())
