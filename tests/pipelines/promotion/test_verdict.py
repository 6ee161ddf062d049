from dhpf.pipelines.promotion.checks import Check
from dhpf.pipelines.promotion.verdict import Verdict

PCK = Check("pck a/test", True, "better", {"difference": 0.1, "low": 0.05, "high": 0.2, "pck": 1 / 3})
SLOW = Check("speed", False, "2.00 times, at most 1.25", {"slowdown": 2.0})


def test_one_check_that_fails_decides() -> None:
    verdict = Verdict("models:/m/3", "models:/m/2", (PCK, SLOW))
    assert not verdict.passed and Verdict("models:/m/3", None, (PCK,)).passed
    assert verdict.headline == "models:/m/3 against the champion models:/m/2"
    assert verdict.rows() == [("pck a/test", "passed", "better"), ("speed", "refused", "2.00 times, at most 1.25")]
    assert verdict.word == "refused"
    assert Verdict("models:/m/1", None, (SLOW,)).headline.endswith("against no champion: absolute checks only")


def test_a_verdicts_tags_hold_words_and_numbers() -> None:
    tags = Verdict("models:/m/3", "models:/m/2", (PCK, SLOW)).tags()
    assert (tags["verdict"], tags["champion"]) == ("refused", "models:/m/2")
    assert tags["speed"] == "refused: 2.00 times, at most 1.25" and tags["speed/slowdown"] == "2"
    assert tags["pck a/test"] == "passed: better" and tags["pck a/test/pck"] == "0.333333"


def test_only_a_comparison_has_a_picture() -> None:
    assert Verdict("models:/m/3", "models:/m/2", (PCK, SLOW)).picture() is not None
    assert Verdict("models:/m/1", None, (SLOW,)).picture() is None
