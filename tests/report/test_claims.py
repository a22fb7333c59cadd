"""Claims: if these fail, the first screen of a report leaves out what was found, or gives a contrast another's name."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from helpers.sample import sample_run, sample_tables
from helpers.synthetic_run import GRPC_FASTER, REST_FASTER, build
from helpers.tables import searched
from infscale.analysis.tables import tabulate
from infscale.experiment.design.design import P95, SATURATION
from infscale.findings import FINDINGS, protocols
from infscale.records.runs import load_run
from infscale.report import advice, claims
from infscale.report.advice import Question
from infscale.report.claims import MOST_SENTENCES, Claim, headline

BASE = Claim(
    finding="protocols",
    run_id="r",
    subject="Triton",
    arm="REST",
    reference="gRPC",
    metric=P95,
    ratio=2.0,
    low=1.5,
    high=2.5,
    answer="differs",
    lifetimes=8,
    needed=None,
    needed_ratio=None,
)


def claim(**changes: Any) -> Claim:
    """A contrast that says that REST is slower."""
    return msgspec.structs.replace(BASE, **changes)


# --- sentences ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "ratio", "text"),
    [
        (
            P95,
            2.0,
            "REST is slower than gRPC: its p95 response time at moderate load is 2.00 times as long [1.50, 2.50]",
        ),
        (
            P95,
            0.5,
            "REST is faster than gRPC: its p95 response time at moderate load is 0.500 times as long [1.50, 2.50]",
        ),
        (SATURATION, 2.0, "REST keeps up with more load than gRPC: its λ* is 2.00 times as high [1.50, 2.50]"),
        (SATURATION, 0.5, "REST keeps up with less load than gRPC: its λ* is 0.500 times as high [1.50, 2.50]"),
    ],
)
def test_a_sentence_turns_with_the_ratio(metric: str, ratio: float, text: str) -> None:
    """The first thing that anybody reads must not know its direction beforehand."""
    assert headline([claim(metric=metric, ratio=ratio)]) == [f"{text} (Triton)."]


def test_equal_is_said_as_equal() -> None:
    """Taken for a small difference, or for undecided, it is lost."""
    same = [claim(answer="equal", metric=metric, ratio=1.0, low=0.97, high=1.03) for metric in (P95, SATURATION)]
    assert headline(same) == [
        "REST and gRPC are equal within 10 % in p95 response time at moderate load: the ratio is 1.00 [0.970, 1.03] "
        "(Triton).",
        "REST and gRPC are equal within 15 % in λ*: the ratio is 1.00 [0.970, 1.03] (Triton).",
    ]


def test_contrasts_of_one_direction_share_a_sentence_and_others_do_not() -> None:
    """Three sentences of the same words hide the one that says the opposite."""
    found = [claim(), claim(subject="TorchServe", ratio=3.0), claim(subject="TF Serving API", ratio=0.4)]
    together, apart = headline(found)
    assert together.startswith("In 2 of 3 cases REST is slower than gRPC: ")
    assert together.endswith("is 2.00 times as long [1.50, 2.50] (Triton) and 3.00 times [1.50, 2.50] (TorchServe).")
    assert apart.startswith("In 1 of 3 cases REST is faster than gRPC: "), "no sentence may contradict another"
    assert headline(found[:2])[0].startswith("In all 2 cases REST is slower")


def test_decided_contrasts_come_first_and_all_undecided_ones_in_one_line() -> None:
    """Seventy undecided contrasts would push the three results off the screen."""
    needs = [{"needed": float(5 + 10 * k), "needed_ratio": 1.2} for k in range(4)] + [
        {"needed": 9.0, "needed_ratio": 1.1}
    ]
    undecided = [claim(answer="undecided", subject=str(k), **more) for k, more in enumerate(needs)]
    last = (
        "Undecided: 5 of 6 named contrasts; about 5 to 35 lifetimes would decide a ratio of 1.2; "
        "about 9 lifetimes would decide a ratio of 1.1."
    )
    sentences = headline([*undecided, claim()])
    assert len(sentences) == 2
    assert sentences[0].startswith("In 1 of 6 cases REST is slower")
    assert sentences[1] == last
    assert headline([claim(answer="undecided")]) == ["Undecided: 1 of 1 named contrast."]
    assert headline([]) == []


def test_a_first_screen_has_at_most_eight_sentences_and_the_first_question_all_of_its_own() -> None:
    """More is no summary; and the question of the page must not lose its answer to another's."""
    own = [claim(arm=f"arm {k}", subject="") for k in range(5)]
    others = [claim(finding=f"f{k}", arm=f"other {j}") for k in range(6) for j in range(3)]
    sentences = headline([*own, *others, claim(answer="undecided")])
    assert len(sentences) == MOST_SENTENCES == 8
    assert [sentence.partition(" is ")[0] for sentence in sentences[:5]] == [f"arm {k}" for k in range(5)]
    assert sentences[-1].startswith("Undecided: 1 of 24")


def test_a_question_of_which_nothing_is_decided_says_so_before_the_others() -> None:
    """Else the page answers questions that nobody asked, and leaves out that its own has no answer yet."""
    found = [claim(answer="undecided"), claim(answer="undecided"), claim(finding="other")]
    first, second, last = headline(found)
    assert first == "None of the 2 named contrasts of this question is decided; of others:"
    assert second.startswith("Other: REST is slower than gRPC")
    assert last == "Undecided: 2 of 3 named contrasts."
    assert len(headline([*found, *(claim(finding=str(k)) for k in range(20))])) == MOST_SENTENCES


def test_a_decided_contrast_without_a_ratio_is_said_by_its_bound() -> None:
    """An arm that did not keep up in most lifetimes is the clearest result, and was once left out."""
    above, below = claim(ratio=None, low=1.4, high=None), claim(ratio=None, low=None, high=0.7)
    assert headline([above]) == [
        "REST is slower than gRPC: its p95 response time at moderate load is at least 1.40 times as long (Triton)."
    ]
    assert headline([below]) == [
        "REST is faster than gRPC: its p95 response time at moderate load is at most 0.700 times as long (Triton)."
    ]
    assert "is 2.00 times as long [1.40, ∞] (Triton)" in headline([claim(low=1.4, high=None)])[0]


@pytest.mark.parametrize(("capacities", "fast", "slow"), [(GRPC_FASTER, "gRPC", "REST"), (REST_FASTER, "REST", "gRPC")])
def test_with_the_data_every_sentence_of_headline_answer_and_advice_turns(
    capacities: dict[tuple[str, str], float], fast: str, slow: str, tmp_path: Path
) -> None:
    """The same run with the protocols exchanged: whatever still praises the same one is the program's opinion."""
    run = load_run(build(tmp_path, capacities, spread=0.01, searches=True))
    tables = tabulate(run)
    verb, load = ("slower", "less") if slow == "REST" else ("faster", "more")
    time, rate = headline(claims.claims(run, tables))[:2]
    assert f"cases REST is {verb} than gRPC: its p95 response time at moderate load is " in time
    assert f"cases REST keeps up with {load} load than gRPC: its λ* is " in rate
    answer = protocols.answer(run, tables)
    assert any(f"TF Serving API, embedded: REST is {verb} than gRPC: " in sentence for sentence in answer)
    assert any(f"TF Serving API, embedded: REST keeps up with {load} load than gRPC: " in text for text in answer)
    opposite = {"slower": "is faster", "faster": "is slower"}[verb]
    assert not any(opposite in sentence and "whether" not in sentence for sentence in answer)
    lines = advice.advise(Question("row", 100, 100), [advice.evidence(run, tables)]).set_index("choice")
    for choice, start in (("protocol", f"{fast} on "), ("encoding", f"{fast} with ")):
        assert str(lines.loc[choice, "advice"]).startswith(start)


# --- names, table, file -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "profile"), list(itertools.product(FINDINGS, ("quick", "full"))))
def test_no_two_contrasts_have_one_name(name: str, profile: str) -> None:
    """Three encodings were once all called "gRPC ÷ REST", and drawn over one another."""
    run, tables = searched(FINDINGS[name].design(profile), usage=False)
    found = claims.claims(run, tables)
    assert len(found) == len(run.manifest.design.contrasts)
    assert not claims.table(found).duplicated(["contrast", "metric"]).any()


def test_names_say_what_differs_and_the_subject_what_does_not() -> None:
    """Else a reader does not know on which server, or with which payload."""
    run, tables = searched(FINDINGS["protocols"].design("quick"), usage=False)
    names = list(dict.fromkeys(claims.table(claims.claims(run, tables))["contrast"]))
    assert names[-2:] == ["Triton, 1 row: REST ÷ gRPC", "Triton, 16 rows: REST ÷ gRPC"]
    run, tables = searched(FINDINGS["encodings"].design("quick"), usage=False)
    assert claims.table(claims.claims(run, tables))["contrast"].iloc[0] == "Triton: REST, JSON, gzip ÷ REST, JSON"


def test_our_own_server_is_named_as_embedded() -> None:
    """ "TF Serving" alone would be read as the real one."""
    run, tables = sample_run("protocols"), sample_tables("protocols")
    assert any(one.subject.startswith("TF Serving API, embedded") for one in claims.claims(run, tables))


def test_the_file_of_contrasts_holds_every_one_and_empty_cells_for_what_is_not_known(tmp_path: Path) -> None:
    """A made-up end, or a contrast that is missing, is quoted from here."""
    found = [claim(), claim(metric=SATURATION, ratio=None, low=None, high=0.7), claim(answer="undecided", subject="")]
    path = claims.save(found, tmp_path)
    assert path.name == "contrasts.csv"
    again = pd.read_csv(path)
    pd.testing.assert_frame_equal(again, claims.table(found))
    assert again["contrast"].tolist() == ["Triton: REST ÷ gRPC", "Triton: REST ÷ gRPC", "REST ÷ gRPC"]
    assert np.isnan(again["low"].iloc[1])
    assert claims.table([]).empty


def test_an_end_that_is_none_is_stored_as_none() -> None:
    """JSON has no infinity; and 0 as the lower end of a ratio would be read as a number."""
    run, tables = searched(FINDINGS["hybrid"].design("tiny"), usage=False)
    tables.contrasts.loc[:, ["ratio", "ratio_low", "ratio_high"]] = [np.inf, 0.0, np.inf]
    assert {(one.ratio, one.low, one.high) for one in claims.claims(run, tables)} == {(None, None, None)}
