import io
import logging

import pytest
import skimage.data
from PIL import Image

from dhpf.config import ModelConfig
from dhpf.model.engines.choose import choose_engine
from dhpf.pipelines.config import Resources
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.matching.block_matching import AS_SUITS
from dhpf.pipelines.matching.measured_costs import _costs, _Trial, measure_costs
from dhpf.pipelines.stages.match import CorrespondenceRows


def test_costs_are_what_two_trials_say() -> None:
    # 2 images and 1 pair in 2.5 s; 4 images and 6 pairs in 7 s: 1 s an image, 0.5 s a pair.
    found = _costs(few=_Trial(2, 1, 2.5, 8_300), many=_Trial(4, 6, 7.0, 9_800))
    assert (found.seconds_per_image, found.seconds_per_pair) == pytest.approx((1, 0.5))
    assert (found.bytes_per_block, found.bytes_per_pair) == pytest.approx((8_000, 300))


def test_two_images_alone_share_their_time() -> None:
    found = _costs(few=_Trial(2, 1, 3.0, 8_300), many=_Trial(2, 1, 2.0, 8_300))
    assert (found.seconds_per_image, found.seconds_per_pair) == (1, 1)
    assert found.bytes_per_block + found.bytes_per_pair == 8_300


def test_no_cost_is_below_nothing() -> None:
    found = _costs(few=_Trial(2, 1, 9.0, 9_000), many=_Trial(4, 6, 1.0, 8_000))
    assert found.seconds_per_pair > 0 and found.seconds_per_image > 0 and found.bytes_per_pair == 0


def test_a_few_pairs_are_measured_and_a_broken_image_is_no_obstacle(caplog: pytest.LogCaptureFixture) -> None:
    buffer = io.BytesIO()
    Image.fromarray(skimage.data.chelsea()[:90, :120]).save(buffer, "PNG")
    files = {name: buffer.getvalue() for name in "abcde"} | {"b": b"no image"}
    network = ModelSource(ModelConfig(selection="fixed", layers=(11,))).load(Resources())
    rows = CorrespondenceRows(50, False, "", "")
    with caplog.at_level(logging.INFO, "dhpf"):
        found = measure_costs(network, choose_engine(), "abcde", files.__getitem__, rows, AS_SUITS)
    assert 0 < found.seconds_per_pair < 10 and 0 < found.seconds_per_image < 10
    assert found.bytes_per_pair > 0
    assert "measuring" in caplog.text
