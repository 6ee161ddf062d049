from pathlib import Path

import pytest

from dhpf.errors import InputError
from pipelines.workflow_file import load_workflow, method_model, read_workflows

FILE = Path(__file__).parents[2] / "workflows.yaml"


def test_every_workflow_of_the_project_is_valid() -> None:
    names = list(read_workflows(FILE))
    for name in names:
        workflow = load_workflow(FILE, name, [], Path("/data"))
        for source in workflow.shard.sources.values():
            assert source.options.get("root", "/data/x").startswith("/data/")
    assert {"quickstart", "pf-pascal-strong", "pf-pascal-weak", "spair-71k-strong", "pf-willow"} <= set(names)
    assert {"caltech-101", "hpf", "match-collection"} <= set(names)


def test_the_papers_settings() -> None:
    strong = load_workflow(FILE, "pf-pascal-strong", [], Path())
    weak = load_workflow(FILE, "pf-pascal-weak", [], Path())
    assert strong.train is not None and weak.train is not None
    assert (strong.train.learning_rate, strong.train.batch_size, strong.train.epochs) == (0.03, 8, 100)
    assert (weak.train.learning_rate, weak.train.batch_size, weak.train.epochs) == (0.1, 4, 30)
    assert (strong.model.backbone, strong.model.projection_divisor) == ("resnet101", 8)


def test_values_are_set_at_any_depth() -> None:
    sets = ["train.epochs=2", "model.image_side=400", "train.supervision.kind=weak", "evaluate.alphas=[0.1]"]
    workflow = load_workflow(FILE, "quickstart", sets, Path())
    assert workflow.train is not None and workflow.evaluate is not None
    assert (workflow.train.epochs, workflow.model.image_side, workflow.train.supervision.kind) == (2, 400, "weak")
    assert workflow.evaluate.alphas == (0.1,)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.epoch=3", "quickstart.train: unknown key 'epoch'; did you mean 'epochs'"),
        ("trian.epochs=3", "quickstart: unknown key 'trian'; did you mean 'train'"),
        ("train.epochs=many", "train.epochs: 'many' should be a whole number"),
        ("train.epochs=true", "train.epochs: True should be a whole number"),
        ("model.backbone=resnet51", "model.backbone: unknown value 'resnet51'; did you mean"),
        ("train.supervision.kind=soft", "supervision.kind: unknown value 'soft'"),
        ("train.on=photos", "no shard set 'photos/train'"),
        ("evaluate.on=[photo-warps/tset]", "did you mean 'photo-warps/test'"),
        ("shard.sources.photo-warps.options.vews=3", "unknown option 'vews'; did you mean 'views'"),
        ("shard.sources.photo-warps.splits=[trn]", "photo_warps has no split 'trn'"),
        ("shard.sources.photo-warps.kind=photo", "did you mean 'photo_warps'"),
        ("evaluate.methods.x={selection: fixed}", "give layers with selection 'fixed'"),
        ("train=null", "'trained' needs a train stage"),
        ("train.epochs", "write stage.key=value"),
        ("summary.x=1", "is a single value"),
        ("train.epochs=[", "the value is not YAML"),
    ],
)
def test_wrong_settings_are_one_clear_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load_workflow(FILE, "quickstart", [setting], Path())
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: {}\na: {}\n", "'a' stands twice"),
        ("- 1\n", "must map workflow names"),
        ("a: [\n", "not YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("a: {summary: x}\n", "a: key 'model' is missing"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_workflow(tmp_path / "w.yaml", "a", [], Path())
    assert sentence in str(caught.value)


def test_a_missing_file_and_an_unknown_workflow() -> None:
    with pytest.raises(InputError, match="no such file"):
        read_workflows(Path("nowhere.yaml"))
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        load_workflow(FILE, "quikstart", [], Path())


def test_a_method_changes_only_what_it_says() -> None:
    workflow = load_workflow(FILE, "pf-pascal-strong", [], Path())
    fixed = method_model(workflow, {"selection": "fixed", "layers": "pf-pascal"}, "x")
    assert (fixed.backbone, fixed.appearance_exponent) == ("resnet101", 3)
