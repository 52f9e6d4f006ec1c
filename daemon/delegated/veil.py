"""Secrets in what is published: an answer, an error or a name may hold some that what was sent did not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from delegated.analysis import Edit
from delegated.plain import settled
from delegated.result import Result
from delegated.secrets import redact

if TYPE_CHECKING:
    from delegated.sieve import Sieve

T = TypeVar("T")
# Words from closed lists, hashes and the names of models that are set up, never a model's own text: a value of an env
# file that happens to be such a word must not spoil them.
_FIXED: Final = frozenset(
    {"verdict", "likelihood", "level", "name", "language", "sha256", "model", "models", "shown", "status"}
)
_NOTE: Final = "it holds a secret, which was taken out here"
_REWRITTEN: Final = "the raw reply held a secret in JSON's escapes: it is kept with these resolved, without the secret"


def veil(result: Result, *, known: Iterable[str] = (), seed: str = "", sieve: Sieve | None = None) -> Result:
    """Replace the secrets in all that a model, a provider or a request put into a result; see `secrets.redact`.

    The receipt is left as it is: it was made from what was sent. An edit from which something was taken does not apply.
    """
    error = result.error
    value = (
        result.request.title,
        result.analysis,
        error.message if error is not None else "",
        result.problems,
        result.warnings,
        result.extra,
        result.raw_response,
        result.comparison,
    )
    plainly = settled(result.raw_response)
    texts = tuple(dict.fromkeys([*_texts(value), plainly]))
    cleaned, found = redact(
        [("the answer", text) for text in texts], known=known, seed=f"{seed}/published", sieve=sieve
    )
    if not found:
        return result
    said = dict(zip(texts, cleaned, strict=True))
    title, analysis, message, problems, warnings, extra, raw, comparison = _with(value, said)
    if settled(raw) != said[plainly]:  # whoever decodes it would read what was not found in it
        raw, warnings = said[plainly], (*warnings, _REWRITTEN)
    return replace(
        result,
        request=replace(result.request, title=title),
        analysis=analysis,
        error=error and replace(error, message=message),
        problems=problems,
        warnings=warnings,
        extra=extra,
        raw_response=raw,
        comparison=comparison,
    )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            if field.name not in _FIXED:
                yield from _texts(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _texts(item)


def _with(value: T, said: Mapping[str, str]) -> T:
    """Return `value` with every text that `said` knows replaced."""
    made: Any = value
    if isinstance(value, str):
        made = said.get(value, value)
    elif is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: _with(getattr(value, field.name), said) for field in fields(value) if field.name not in _FIXED
        }
        made = replace(value, **changed)
        if isinstance(value, Edit) and (value.before, value.after) != (made.before, made.after):
            made = replace(made, applies=False, parses=None, note=_NOTE)
    elif isinstance(value, Mapping):
        made = {_with(key, said): _with(item, said) for key, item in value.items()}
    elif isinstance(value, tuple | list):
        made = type(value)(_with(item, said) for item in value)
    return made  # type: ignore[no-any-return]
