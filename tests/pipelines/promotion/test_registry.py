"""Champions in a real MLflow store; versions without models, since nothing is loaded here."""

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.promotion.registry import VERDICT_TAG, Registry, champions_before, champions_with
from dhpf.pipelines.tracking.tracker import Tracker


def champion(registry: Registry) -> str | None:
    found = registry.champion("m")
    return found.version if found else None


def test_promotions_are_taken_back_one_by_one(registry: Registry) -> None:
    assert champion(registry) is None
    for version, over in (("1", None), ("2", "1"), ("3", "2")):
        registry.promote("m", version, over)
        assert champion(registry) == version
    assert registry.rollback("m") == ("3", "2")
    assert "to version 2 on 20" in registry.find("m", "3").tags["dhpf.rolled_back"]
    assert registry.rollback("m") == ("2", "1")
    with pytest.raises(InputError, match="no champion before version 1"):
        registry.rollback("m")
    assert champion(registry) == "1"


def test_a_version_that_is_champion_twice_leads_back_to_the_beginning(registry: Registry) -> None:
    for version, over in (("1", None), ("2", "1"), ("1", "2")):
        registry.promote("m", version, over)
    assert [registry.rollback("m") for _ in range(2)] == [("1", "2"), ("2", "1")]
    with pytest.raises(InputError, match="no champion before version 1"):
        registry.rollback("m")


def test_a_champion_set_by_hand_is_known(registry: Registry, tracker: Tracker) -> None:
    registry.promote("m", "1", None)
    tracker.client.set_registered_model_alias("m", "champion", "4")
    registry.promote("m", "2", "4")
    assert [registry.rollback("m") for _ in range(2)] == [("2", "4"), ("4", "1")]


def test_deleted_versions_are_passed_over(registry: Registry, tracker: Tracker) -> None:
    for version, over in (("1", None), ("2", "1"), ("3", "2")):
        registry.promote("m", version, over)
    tracker.client.delete_model_version("m", "2")
    assert registry.rollback("m") == ("3", "1")


def test_a_champion_that_changed_meanwhile_is_not_overwritten(registry: Registry) -> None:
    registry.promote("m", "1", None)
    registry.promote("m", "2", "1")
    with pytest.raises(InputError, match="changed from version 1 to 2 during the comparison"):
        registry.promote("m", "3", "1")
    assert champion(registry) == "2"


def test_a_new_verdict_replaces_the_old_one_whole(registry: Registry) -> None:
    registry.write_verdict("m", "2", {"verdict": "refused", "pck a/test": "worse"})
    registry.write_verdict("m", "2", {"verdict": "passed", "speed": "as fast"})
    tags = registry.find("m", "2").tags
    assert {k: v for k, v in tags.items() if k.startswith("dhpf.promotion.")} == {
        VERDICT_TAG: "passed",
        "dhpf.promotion.speed": "as fast",
    }
    assert not registry.find("m", "1").tags


def test_a_verdict_of_an_earlier_release_is_read_and_replaced(registry: Registry, tracker: Tracker) -> None:
    for tag, value in {"verdict": "refused", "pck a/test": "refused: worse"}.items():
        tracker.client.set_model_version_tag("m", "2", f"dhpf.gate.{tag}", value)
    assert registry.find("m", "2").verdict == {"verdict": "refused", "pck a/test": "refused: worse"}
    registry.write_verdict("m", "2", {"verdict": "passed", "speed": "as fast"})
    assert registry.find("m", "2").verdict == {"verdict": "passed", "speed": "as fast"}
    assert set(registry.find("m", "2").tags) == {"dhpf.promotion.verdict", "dhpf.promotion.speed"}


def test_versions_are_found_by_number_and_alias(registry: Registry, tracker: Tracker) -> None:
    tracker.client.set_registered_model_alias("m", "latest-trained", "3")
    registry.promote("m", "3", None)
    assert registry.names() == ["m"]
    assert [v.version for v in registry.versions("m")] == ["4", "3", "2", "1"]
    assert registry.find("m", "latest-trained").aliases == ("champion", "latest-trained")


@pytest.mark.parametrize(
    ("name", "reference", "sentence"),
    [
        ("n", "1", "model 'n': not in the registry"),
        ("n' OR name = 'm", "1", "not in the registry"),
        ("m", "9", "no version or alias '9'"),
        ("m", "champoin", "did you mean 'champion'"),
    ],
)
def test_what_is_not_there_is_one_sentence(registry: Registry, name: str, reference: str, sentence: str) -> None:
    registry.promote("m", "1", None)
    with pytest.raises(InputError) as caught:
        registry.find(name, reference)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_to_roll_back(registry: Registry) -> None:
    with pytest.raises(InputError, match="has no champion to roll back"):
        registry.rollback("m")


def test_champions_by_hand() -> None:
    assert champions_with([], None) == []
    assert champions_with(["1"], "1") == ["1"]
    assert champions_with(["1"], "2") == ["1", "2"]
    assert champions_before(["1", "2", "2", "3"], "3", {"1", "2", "3"}) == ["1", "2", "2"]
    assert champions_before(["1", "2"], "3", {"1", "2", "3"}) == ["1", "2"]
    assert champions_before(["2"], "2", {"2"}) == []
