"""The schema that editors check workflow files by."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhpf.pipelines.__main__ import main
from dhpf.pipelines.workflow_schema import workflow_file_schema

STORED = Path(__file__).parents[2] / "docs" / "workflows.schema.json"


def test_the_stored_schema_is_the_one_that_the_code_gives(capsys: pytest.CaptureFixture[str]) -> None:
    """`dhpf schema > docs/workflows.schema.json` renews it."""
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == STORED.read_text(encoding="utf-8")


def test_every_field_has_a_description() -> None:
    undescribed = [
        f"{name}.{key}"
        for name, definition in workflow_file_schema()["$defs"].items()
        for key, value in definition["properties"].items()
        if not value.get("description")
    ]
    assert undescribed == []
    assert all(definition["description"] for definition in workflow_file_schema()["$defs"].values())


def test_fields_have_types_words_and_what_is_required() -> None:
    definitions = workflow_file_schema()["$defs"]
    workflow, train = definitions["Workflow"], definitions["TrainConfig"]
    assert workflow["required"] == ["summary", "model"] and "name" not in workflow["properties"]
    assert workflow["properties"]["train"]["anyOf"] == [{"$ref": "#/$defs/TrainConfig"}, {"type": "null"}]
    assert train["properties"]["epochs"]["type"] == "integer" and train["additionalProperties"] is False
    assert train["properties"]["precision"]["enum"] == ["float32", "bfloat16"]
    assert train["properties"]["batch_size"]["description"] == "pairs per step, over all workers together."
    assert train["properties"]["momentum"]["description"] == train["properties"]["learning_rate"]["description"]
    evaluate, match = (definitions[name]["properties"] for name in ("EvaluateConfig", "MatchConfig"))
    assert (
        evaluate["num_actors"] == match["num_actors"] and "processes that match" in match["num_actors"]["description"]
    )
    collection = definitions["CollectionConfig"]["properties"]
    assert collection["select"]["enum"][:2] == ["all", "within-folders"] and collection["reach"]["type"] == "integer"
    assert definitions["ShardConfig"]["required"] == ["sources"]
