from pathlib import Path

import pytest

from dhpf.errors import InputError
from dhpf.pipelines.workflow_file import load_workflow, method_model, read_workflows, search_model
from dhpf.planning.select import All, Neighbours, PairList, Reference, WithinFolders

FILE = Path(__file__).parents[2] / "workflows.yaml"


def test_every_workflow_of_the_project_is_valid() -> None:
    names = list(read_workflows(FILE))
    for name in names:
        workflow = load_workflow(FILE, name, [], Path("/data"))
        roots = (
            [source.options.get("root", "/data/x") for source in workflow.shard.sources.values()]
            if workflow.shard
            else []
        )
        roots += [collection.root for collection in workflow.match.collections.values()] if workflow.match else []
        assert roots and all(root.startswith("/data/") for root in roots)
    assert {"quickstart", "pf-pascal-strong", "pf-pascal-weak", "spair-71k-strong", "pf-willow"} <= set(names)
    assert {"caltech-101", "hpf", "match-collection", "match-folder"} <= set(names)


def test_the_papers_settings() -> None:
    strong = load_workflow(FILE, "pf-pascal-strong", [], Path())
    weak = load_workflow(FILE, "pf-pascal-weak", [], Path())
    assert strong.train is not None and weak.train is not None
    assert (strong.train.learning_rate, strong.train.batch_size, strong.train.epochs) == (0.03, 8, 100)
    assert (weak.train.learning_rate, weak.train.batch_size, weak.train.epochs) == (0.1, 4, 30)
    assert (strong.model.backbone, strong.model.projection_divisor) == ("resnet101", 8)


def test_every_workflow_that_trains_says_what_a_champion_must_hold() -> None:
    for name in read_workflows(FILE):
        workflow = load_workflow(FILE, name, [], Path("/data"))
        assert (workflow.promotion is None) == (workflow.train is None), name


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
        ("search=null", "quickstart.train.gates_start: 'searched' needs a search stage"),
        ("train.gates_start=serched", "train.gates_start: unknown value 'serched'; did you mean 'searched'"),
        ("search.on=photo-warps/vall", "quickstart.search.on: no shard set 'photo-warps/vall'; did you mean"),
        ("search.beam=0", "quickstart.search: beam: 0 must be at least 1"),
        ("search.max_pairs=0", "quickstart.search: max_pairs: 0 must be at least 1"),
        ("search.alpha=2", "quickstart.search: alpha: 2.0 must be in (0, 1]"),
        ("search.model={layers: [3]}", "quickstart.search: model: ['layers'] must be left out"),
        ("search.model={exponnt: 3}", "quickstart.search.model: unknown key 'exponnt'; did you mean 'exponent'"),
        ("search.model={weights: none.pth}", "quickstart.search.model: no weights file 'none.pth'"),
        ("train.epochs", "write stage.key=value"),
        ("summary.x=1", "is a single value"),
        ("train.epochs=[", "not YAML"),
        ("train.epochs=!!python/name:os.system", "not YAML"),
        ("shard.sources.photo-warp.options.views=2", "no source 'photo-warp'; did you mean 'photo-warps'"),
        ("shard.sources={}", "quickstart.shard: sources: must name at least one"),
        ("shard.max_images=1", "quickstart.shard: max_images: 1 must be at least 2"),
        ("shard.max_pairs=0", "max_pairs: 0 must be at least 1"),
        ("shard.resources.cpus=0", "quickstart.shard.resources: cpus: 0.0 must be above 0"),
        ("shard.sources.photo-warps.splits=[test, test]", "splits: ['test', 'test'] must be one or more different"),
        ("train.on=[photo-warps/train]", "quickstart.train: validate_on: is missing; name the shard set"),
        ("train.on=[]", "quickstart.train: on: [] must be one or more different values"),
        ("train.validate_on=photo-warps/tset", "quickstart.train.on: no shard set 'photo-warps/tset'; did you mean"),
        ("train.supervision={kind: contrastiv}", "unknown value 'contrastiv'; did you mean 'contrastive'"),
        ("train.epochs=0", "quickstart.train: epochs: 0 must be at least 1"),
        ("train.batch_size=1", "batch_size: 1 must be at least 2"),
        ("train.min_workers=3", "min_workers: 3 must be in 1 .. 2"),
        ("train.learning_rate=.nan", "learning_rate: nan must be above 0"),
        ("train.learning_rate=fast", "train.learning_rate: 'fast' should be a number"),
        ("train.momentum=1", "momentum: 1.0 must be in [0, 1)"),
        ("train.max_failures=-1", "max_failures: -1 must be 0 or more"),
        ("evaluate.alphas=[]", "alphas: [] must be one or more"),
        ("evaluate.alphas=[0.1, 10]", "alphas: 10.0 must be in (0, 1]"),
        ("evaluate.methods={}", "methods: must name at least one"),
        ("evaluate.intermediates={dynamik: 2}", "intermediates: unknown value 'dynamik'; did you mean 'dynamic'"),
        ("evaluate.intermediates={dynamic: -1}", "quickstart.evaluate: intermediates.dynamic: -1 must be 0 or more"),
        ("match.intermediates=-1", "quickstart.match: intermediates: -1 must be 0 or more"),
        ("evaluate.methods={../../x: trained}", "methods: '../../x' must consist of letters"),
        ("evaluate.methods.x=5", "quickstart.evaluate.methods.x: 5 should be text or a mapping"),
        ("evaluate.methods.x=traned", "quickstart.evaluate.methods.x: no checkpoint 'traned'; give 'trained'"),
        ("evaluate.methods.x={weights: none.pth}", "evaluate.methods.x: no weights file 'none.pth'"),
        ("model.weights=none.pth", "quickstart.model: no weights file 'none.pth'"),
        ("match.model={selction: all}", "quickstart.match.model: unknown key 'selction'; did you mean 'selection'"),
        ("match.num_actors=0", "quickstart.match: num_actors: 0 must be at least 1"),
        ("match.min_actors=3", "quickstart.match: min_actors: 3 must be in 1 .. 2"),
        ("match.features=float8", "quickstart.match.features: unknown value 'float8'; did you mean"),
        (
            "match.collections.x={root: photos, select: list}",
            "quickstart.match.collections.x.pair_list: is missing; select 'list' needs it",
        ),
        (
            "match.collections.x={root: photos, pair_list: p.csv}",
            "x.pair_list: 'p.csv' with select 'within-folders'; give it with select 'list', and only with it",
        ),
        (
            "match.collections.x={root: photos, select: al}",
            "x.select: unknown value 'al'; did you mean 'all'",
        ),
        ("match.collections.x={root: photos, select: [all]}", "collections.x.select: unknown value"),
        ("match.collections.x={root: photos, selct: all}", "collections.x: unknown key 'selct'; did you mean 'select'"),
        ("match.collections.x={root: photos, rech: 3}", "collections.x: unknown key 'rech'; did you mean 'reach'"),
        (
            "match.collections.x={root: photos, select: neighbours, reach: near}",
            "collections.x.reach: 'near' must be a whole number of at least 1",
        ),
        (
            "shard.sources.x={kind: image_folder, splits: [all], options: {root: photos, pairing: within_folders}}",
            "pair source image_folder: option pairing is called select now, as in select: within-folders",
        ),
        ("registered_model=a/b", "registered_model: 'a/b' must consist of letters"),
        ("promotion.confidance=0.9", "quickstart.promotion: unknown key 'confidance'; did you mean 'confidence'"),
        ("promotion.on=[]", "quickstart.promotion: on: [] must be one or more different values"),
        ("promotion.on=[photo-warps/tset]", "quickstart.promotion.on: no shard set 'photo-warps/tset'; did you mean"),
        ("promotion.alpha=0", "quickstart.promotion: alpha: 0.0 must be in (0, 1]"),
        ("promotion.confidence=1", "quickstart.promotion: confidence: 1.0 must be in (0, 1)"),
        ("promotion.resamples=10", "quickstart.promotion: resamples: 10 must be at least 100"),
        ("promotion.seed=-1", "quickstart.promotion: seed: -1 must be in"),
        ("promotion.least_pck=70", "quickstart.promotion: least_pck: 70.0 must be in [0, 1]"),
        ("promotion.max_slowdown=0", "quickstart.promotion: max_slowdown: 0.0 must be above 0"),
        ("promotion.checked_pairs=0", "quickstart.promotion: checked_pairs: 0 must be at least 1"),
        ("gates.on=[]", "quickstart: the key 'gates' is called 'promotion' now; rename it"),
        ("promotion={alpha: 0.1}", "quickstart.promotion: key 'on' is missing"),
        ("name=x", "unknown key 'name'"),
    ],
)
def test_wrong_settings_are_one_clear_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load_workflow(FILE, "quickstart", [setting], Path())
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_and_lists_of_collections_lie_below_the_data_folder() -> None:
    setting = "match.collections.photos={root: photos, select: list, pair_list: lists/pairs.csv}"
    workflow = load_workflow(FILE, "match-folder", [setting], Path("/data"))
    assert workflow.match is not None
    collection = workflow.match.collections["photos"]
    assert (collection.root, collection.select) == ("/data/photos", PairList("/data/lists/pairs.csv"))


def test_pairs_are_chosen_by_name_with_the_options_of_that_choice_beside_it() -> None:
    def chosen(*settings: str) -> object:
        sets = [f"match.collections.photos.{setting}" for setting in settings]
        workflow = load_workflow(FILE, "match-folder", sets, Path())
        assert workflow.match is not None
        return workflow.match.collections["photos"].select

    assert chosen() == WithinFolders()
    assert chosen("select=all", "reach=null") == All()
    assert chosen("select=reference", "reference=a/1.jpg") == Reference("a/1.jpg")
    assert chosen("select=neighbours", "reach=3") == Neighbours(3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: {}\na: {}\n", "'a' stands twice"),
        ("- 1\n", "must map workflow names"),
        ("a: [\n", "not YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "not YAML"),
        ("a: {summary: x}\n", "a: key 'model' is missing"),
        ("a: hello\n", "'a' must be a name with a mapping of stages below it"),
        ("a: {}\nb: [1]\n", "'b' must be a name with a mapping of stages below it"),
        ("a:\n", "'a' must be a name with a mapping of stages below it"),
        ("1: {}\n", "1 must be a name with a mapping of stages below it"),
        ("[" * 3000, "nested more than 32 deep"),
        ("a: {\x00}", "not YAML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_workflow(tmp_path / "w.yaml", "a", [], Path())
    assert sentence in str(caught.value)


def test_a_workflow_needs_a_name_for_its_folder(tmp_path: Path) -> None:
    text = FILE.read_text().replace("quickstart:", "../up:", 1)
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(InputError, match="name: '../up' must consist of letters"):
        load_workflow(tmp_path / "w.yaml", "../up", [], Path())


def test_a_folder_is_no_workflow_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder, not a file that can be read"):
        read_workflows(tmp_path)


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("5E2", 500.0), ("0.5", 0.5), ("1", 1.0)])
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    workflow = load_workflow(FILE, "quickstart", [f"train.learning_rate={text}"], Path())
    assert workflow.train is not None and workflow.train.learning_rate == value


def test_words_that_look_like_truth_or_numbers_stay_words(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("a: {on: off, yes: 1e, no: e5}\n")
    assert read_workflows(tmp_path / "w.yaml") == {"a": {"on": "off", "yes": "1e", "no": "e5"}}


def test_data_and_checkpoints_are_found(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"x")
    sets = [
        "shard.sources.photos.options={root: mine, select: list, pair_list: /abs/pairs.csv}",
        f"match.model={tmp_path / 'm.safetensors'}",
    ]
    workflow = load_workflow(FILE, "match-collection", sets, Path("/data"))
    options = workflow.shard.sources["photos"].options
    assert (options["root"], options["pair_list"]) == ("/data/mine", "/abs/pairs.csv")
    assert workflow.match is not None and workflow.match.model == str(tmp_path / "m.safetensors")
    whole = "shard.sources.more={kind: photo_warps, splits: [test]}"
    assert set(load_workflow(FILE, "quickstart", [whole], Path()).shard.sources) == {"photo-warps", "more"}


def test_a_missing_file_and_an_unknown_workflow() -> None:
    with pytest.raises(InputError, match="no such file"):
        read_workflows(Path("nowhere.yaml"))
    with pytest.raises(InputError, match="did you mean 'quickstart'"):
        load_workflow(FILE, "quikstart", [], Path())


def test_a_method_changes_only_what_it_says() -> None:
    workflow = load_workflow(FILE, "pf-pascal-strong", [], Path())
    fixed = method_model(workflow, {"selection": "fixed", "layers": "pf-pascal"}, "x")
    assert (fixed.backbone, fixed.appearance_exponent) == ("resnet101", 3)


def test_a_search_has_all_layers_and_the_exponent_of_a_fixed_selection() -> None:
    workflow = load_workflow(FILE, "quickstart", ["search.model={image_side: 400}"], Path())
    model = search_model(workflow)
    assert (model.selection, model.layers, model.exponent, model.image_side) == ("all", (), 3, 400)
    workflow = load_workflow(FILE, "quickstart", ["search.model={exponent: 2}"], Path())
    assert search_model(workflow).exponent == 2


def test_a_training_names_a_source_or_shard_sets() -> None:
    lite = load_workflow(FILE, "pf-pascal-lite", [], Path()).train
    taught = load_workflow(FILE, "self-taught", [], Path()).train
    assert lite is not None and taught is not None
    assert (lite.train_sets, lite.validation_set) == (("pf-pascal/train",), "pf-pascal/val")
    assert (taught.train_sets, taught.validation_set) == (("caltech-101/test",), "pf-pascal/val")
    foreign = load_workflow(FILE, "pf-pascal-lite", ["train.validate_on=pf-willow/test"], Path()).train
    assert foreign is not None and foreign.validation_set == "pf-willow/test"
