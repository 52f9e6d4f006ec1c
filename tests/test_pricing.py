"""The table of models: an unknown price is never 0, a bound is never below the cost, a date is warned of in time."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated import config
from delegated.pricing import TABLE, ModelFacts, bound, cost, days_left, facts, warning
from delegated.reply import Usage

GPT_4O = facts("gpt-4o")
LUNA = facts("gpt-6-luna")
assert GPT_4O is not None
assert LUNA is not None
TOKENS = st.integers(0, 2_000_000)
PAGE = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_row_is_sound(row: ModelFacts) -> None:
    """Limits and prices make sense, the facts have a date, and a successor is a model that we know."""
    assert 0 < row.output_tokens <= row.context_tokens
    date.fromisoformat(row.as_of)
    assert row.input_usd is not None
    assert row.output_usd is not None
    assert (row.cached_usd or 0) <= row.input_usd <= row.output_usd
    assert row.long_input_factor >= 1
    assert row.long_output_factor >= 1
    if row.shutdown:
        date.fromisoformat(row.shutdown)
        successor = facts(row.successor)
        assert successor is not None
        assert not successor.shutdown or successor.shutdown > row.shutdown


def test_gpt_4o_is_as_published() -> None:
    """The default model, its prices per million tokens, its limits, its end and who follows."""
    assert (GPT_4O.input_usd, GPT_4O.cached_usd, GPT_4O.output_usd) == (2.5, 1.25, 10.0)
    assert (GPT_4O.context_tokens, GPT_4O.output_tokens) == (128_000, 16_384)
    assert (GPT_4O.shutdown, GPT_4O.successor) == ("2027-01-14", "gpt-6-luna")
    assert GPT_4O.takes_temperature
    assert not LUNA.takes_temperature


def test_a_name_leads_to_its_facts() -> None:
    """A dated snapshot is its family unless it has a row; a script is `scripted`; anything else is unknown."""
    snapshot = facts("gpt-4o-2024-11-20")
    assert snapshot is not None
    assert (snapshot.name, snapshot.input_usd) == ("gpt-4o-2024-11-20", 2.5)
    first = facts("gpt-4o-2024-05-13")
    assert first is not None
    assert (first.input_usd, first.shutdown) == (5.0, "2026-10-23")
    script = facts("scripted:/tmp/a.json")
    assert script is not None
    assert (script.provider, script.name, bound(script, 10**6, 10**6)) == ("scripted", "scripted:/tmp/a.json", 0.0)
    for name in ("gpt-4o-turbo", "gpt-4", "", "gpt-4o-2024", "GPT-4o"):
        assert facts(name) is None


def test_configured_facts_go_before_the_table() -> None:
    """What is configured counts, what is left out is as in the table, or cautious for a model that is not there."""
    cheaper = facts("gpt-4o", {"gpt-4o": {"input_usd": 1.0}})
    assert cheaper is not None
    assert (cheaper.input_usd, cheaper.output_usd, cheaper.provider) == (1.0, 10.0, "openai")
    local = facts("qwen", {"qwen": {"context_tokens": 65_536, "input_usd": 0.0, "output_usd": 0.0}})
    assert local is not None
    assert (local.name, local.provider, local.context_tokens, bound(local, 10, 10)) == ("qwen", "chat", 65_536, 0.0)
    unpriced = facts("qwen", {"qwen": {}})
    assert unpriced is not None
    assert bound(unpriced, 10, 10) is None
    assert facts("other", {"qwen": {}}) is None


def test_an_unknown_price_is_not_zero() -> None:
    """Without facts, a price or a usage there is no figure at all."""
    half = facts("m", {"m": {"input_usd": 0.0}})
    for known in (None, half):
        assert bound(known, 1, 1) is None
        assert cost(known, Usage(1, 0, 1)) is None
    assert cost(GPT_4O, None) is None


def test_costs_are_as_published() -> None:
    """Cached input at its own price, the rest at the full one; from a length on the whole call is dearer."""
    assert cost(GPT_4O, Usage(1_000_000, 400_000, 100_000)) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25 + 1.0)
    assert bound(GPT_4O, 1_000_000, 100_000) == pytest.approx(3.5)
    assert cost(LUNA, Usage(272_000, 0, 1_000)) == pytest.approx(0.0272 + 0.0005)
    assert cost(LUNA, Usage(272_001, 0, 1_000)) == pytest.approx(2 * 0.0272001 + 1.5 * 0.0005)
    assert cost(facts("gpt-4o-2024-05-13"), Usage(1_000_000, 1_000_000, 0)) == pytest.approx(5.0)


def test_what_is_put_into_the_cache_costs_more_where_it_does() -> None:
    """Anthropic takes a quarter more for it, and the bound is as if all of the input were put there."""
    claude = facts("claude-sonnet-5-5")
    usage = Usage(1_000_000, 500_000, 100_000, written_input_tokens=200_000)
    assert cost(claude, usage) == pytest.approx(0.3 * 2.0 + 0.5 * 0.1 + 0.2 * 2.0 * 1.25 + 1.0)
    assert bound(claude, 1_000_000, 100_000) == pytest.approx(2.0 * 1.25 + 1.0)
    assert cost(GPT_4O, usage) == pytest.approx(0.5 * 2.5 + 0.5 * 1.25 + 1.0)


@given(st.sampled_from(TABLE), TOKENS, TOKENS, TOKENS, TOKENS, TOKENS, TOKENS)
def test_a_call_never_costs_more_than_its_bound(
    row: ModelFacts, told: int, cached: int, written: int, said: int, more_told: int, more_said: int
) -> None:
    """Whatever the provider counts within the limits, the price fixed beforehand holds."""
    spent = cost(row, Usage(told, cached, said, written_input_tokens=written))
    at_most = bound(row, told + more_told, said + more_said)
    assert spent is not None
    assert at_most is not None
    assert 0 <= spent <= at_most + 1e-9


@pytest.mark.parametrize(
    ("today", "left", "words"),
    [
        ("2026-10-15", 91, ""),
        ("2026-10-16", 90, "leaves its provider's API on 2027-01-14, in 90 days"),
        ("2027-01-13", 1, "2027-01-14, tomorrow"),
        ("2027-01-14", 0, "left its provider's API on 2027-01-14"),
        ("2028-01-14", -365, "left its provider's API on 2027-01-14"),
    ],
)
def test_a_shutdown_is_warned_of_in_time(today: str, left: int, words: str) -> None:
    """From 90 days before, and after; with the line of configuration that names the successor."""
    assert days_left(GPT_4O, today) == left
    said = warning(GPT_4O, today)
    assert words in said
    assert bool(said) == bool(words)
    if said:
        assert "`model:`" in said
        assert "gpt-6-luna" in said


def test_a_model_without_a_date_is_not_warned_of() -> None:
    """No date known, nothing said; a malformed today is an error, not a silence."""
    assert (days_left(LUNA, "2026-11-01"), warning(LUNA, "2026-11-01")) == (None, "")
    with pytest.raises(ValueError):
        days_left(GPT_4O, "yesterday")


def test_the_page_shows_the_table() -> None:
    """What docs/models.md says of each model is what the program reckons with."""
    rows = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and cells[1].replace(",", "").isdecimal():
            rows[cells[0].strip("`")] = cells[1:]
    assert rows.keys() == {row.name for row in TABLE}
    for row in TABLE:
        context, output, *prices, leaves = rows[row.name]
        assert (context, output) == (f"{row.context_tokens:,}", f"{row.output_tokens:,}")
        shown = [None if price == "none" else float(price) for price in prices]
        assert shown == [row.input_usd, row.cached_usd, row.output_usd]
        dates = re.findall(r"\d{4}-\d\d-\d\d", leaves)
        assert dates == ([row.shutdown] if row.shutdown else [])
    as_of = re.search(r"facts as of (\S+),", PAGE)
    assert as_of is not None
    assert {row.as_of for row in TABLE} == {as_of[1]}


def test_the_configurations_on_the_page_can_be_loaded(tmp_path: Path) -> None:
    """Each example of docs/models.md is a whole configuration, and its models have facts."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        file = tmp_path / "config.yaml"
        file.write_text(block, encoding="utf-8")
        loaded = config.load(user_file=str(file), env={}, system_file=str(tmp_path / "none.yaml"))
        assert loaded.model in loaded.models or facts(loaded.model) is not None
        for name, model in loaded.models.items():
            assert model.endpoint is None or model.endpoint in loaded.endpoints
            given = {"input_usd": model.input_usd, "output_usd": model.output_usd}
            assert bound(facts(name, {name: given}), 1, 1) is not None
