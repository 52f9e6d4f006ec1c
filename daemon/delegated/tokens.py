"""How many tokens a text is: exactly where the tokenizer is installed, estimated where it is not."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

ENCODING: Final = "o200k_base"  # GPT-4o and its successors
BYTES_PER_TOKEN: Final = 2.5  # code has 3.6 and more, logs 2.7 in the median: the estimate errs on the safe side


@dataclass(frozen=True, slots=True)
class Counter:
    """Count tokens by calling it. `exact` says whether a tokenizer counts; else ceil(UTF-8 bytes / 2.5) is returned."""

    exact: bool

    def __call__(self, text: str) -> int:
        """Return the number of tokens in `text`. What looks like a special token (`<|endoftext|>`) is ordinary text.

        The first exact count of a process loads the tables, about a second; do it in a thread of its own, early.
        """
        if not self.exact:
            return math.ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)
        import toktok  # 64 MB of tables: only where something is counted

        try:
            return int(toktok.batch_count([text], ENCODING, threads=1)[0])
        except UnicodeEncodeError:  # lone surrogates have no UTF-8 form; they leave as question marks
            return self(text.encode("utf-8", "replace").decode())


def counter() -> Counter:
    """Return the best counter there is, without loading it."""
    return Counter(exact=importlib.util.find_spec("toktok") is not None)


def at_most(text: str, count: Callable[[str], int], *, exact: bool) -> int:
    """Bound the tokens of a text that is sent from above, a margin for the wire's own words included.

    `exact`: `count` is the model's own tokenizer. Otherwise bytes are counted: no tokenizer makes more of a text.
    """
    if exact:
        return int(count(text) * 1.1) + 16
    return len(text.encode("utf-8", "replace")) + 16
