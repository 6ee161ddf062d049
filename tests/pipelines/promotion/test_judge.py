"""What a judge refuses, and how it predicts; its checks are tested in test_checks.py, the whole in test_contest.py."""

from pathlib import Path

import pytest

from dhpf.config import ModelConfig
from dhpf.errors import InputError
from dhpf.pipelines.config import EvaluateConfig, PromotionConfig
from dhpf.pipelines.inputs.model_source import ModelSource
from dhpf.pipelines.inputs.shard_set import ShardSet
from dhpf.pipelines.promotion.judge import Judge
from dhpf.pipelines.stages.evaluate import MethodScores

CONFIG = PromotionConfig(on=("a/test",), resamples=1000)


def test_a_benchmark_without_keypoints_is_refused(tmp_path: Path) -> None:
    masks = ShardSet("a/test", (), (), "digest", {"num_pairs": 0})
    judge = Judge(CONFIG, EvaluateConfig(on=("a/test",), methods={"m": {}}), {"a/test": masks}, tmp_path)
    with pytest.raises(InputError, match="a/test has no keypoints and so no PCK"):
        judge.judge(None, None)  # type: ignore[arg-type]


def test_models_are_judged_by_pairs_alone_though_the_workflow_matches_jointly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[EvaluateConfig] = []

    def watched(config: EvaluateConfig, *_: object) -> list[MethodScores]:
        configs.append(config)
        raise InputError("seen")

    monkeypatch.setattr("dhpf.pipelines.promotion.judge.evaluate", watched)
    jointly = EvaluateConfig(on=("a/test",), methods={"m": {}}, intermediates={"m": 8})
    shards = ShardSet("a/test", (), ("image",), "digest", {"num_pairs": 0})
    with pytest.raises(InputError, match="seen"):
        Judge(CONFIG, jointly, {"a/test": shards}, tmp_path).judge(ModelSource(ModelConfig()), None)
    assert [(config.intermediates, len(config.methods)) for config in configs] == [({}, 1)]
