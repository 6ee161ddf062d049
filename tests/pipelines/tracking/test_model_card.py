import dataclasses
from pathlib import Path

from dhpf.config import ModelConfig
from dhpf.pipelines.outputs.code_version import code_version
from dhpf.pipelines.tracking.model_card import ModelCard, TrainingData
from dhpf.pipelines.tracking.registering import MAX_DESCRIPTION
from dhpf.pipelines.workflow_file import load_workflow, read_workflows

FILE = Path(__file__).parents[3] / "workflows.yaml"
DATA = tuple(TrainingData(f"pf-pascal/{split}", "pf_pascal", 2940, "ab" * 32) for split in ("train", "val"))


def test_a_card_says_what_a_user_must_know() -> None:
    model = ModelConfig(backbone="resnet101", image_side=400)
    text = ModelCard(model, {"learning_rate": 0.03}, DATA, {"val_pck": 0.81234}).text()
    assert "| pf-pascal/train | pf_pascal | 2940 | `abab" in text
    assert "val_pck: 0.8123" in text and '"learning_rate": 0.03' in text and '"image_side": 400' in text
    assert code_version() in text
    assert text.count("- Data: ") == 1, "train and val of one source have the same terms"
    assert "Flickr" in text and "torchvision" in text
    assert all(f"\n## {title}\n" in text for title in ("Intended use", "Limits", "Training data", "Licences"))


def test_weights_of_the_users_own_are_not_given_the_publishers_licence() -> None:
    text = ModelCard(ModelConfig(weights="mine.pth"), {}, DATA, {}).text()
    assert "Apache" not in text and "A file that the user gave" in text


def test_the_cards_of_the_projects_workflows_fit_into_a_description() -> None:
    for name in read_workflows(FILE):
        workflow = load_workflow(FILE, name, [], Path("/data"))
        if workflow.train is not None:
            card = ModelCard(workflow.model, dataclasses.asdict(workflow.train), DATA, {"val_pck": 0.5, "epoch": 3})
            assert len(card.text()) < MAX_DESCRIPTION
