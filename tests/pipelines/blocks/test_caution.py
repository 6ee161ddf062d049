"""What is left out of a block."""

from dhpf.pipelines.blocks.caution import NO_CAUTION, Caution


def test_an_image_is_left_out_by_itself_or_with_its_block() -> None:
    assert NO_CAUTION.reason_without("a") is None
    assert [Caution({"a": "deadly"}).reason_without(image) for image in "ab"] == ["deadly", None]
    assert [Caution({"a": "deadly"}, block="given up").reason_without(image) for image in "ab"] == ["given up"] * 2


def test_without_listener_nothing_is_stepwise() -> None:
    assert not NO_CAUTION.is_stepwise
    assert Caution(on_step=print).is_stepwise
