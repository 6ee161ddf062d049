from dhpf.config import BUILT_IN_BACKBONES
from dhpf.licences import BACKBONE_LICENCES, DATA_LICENCES, weights_licence
from dhpf.pairs import PAIR_SOURCES


def test_every_pair_source_and_every_backbone_has_its_terms() -> None:
    assert DATA_LICENCES.keys() == PAIR_SOURCES.keys()
    assert BACKBONE_LICENCES.keys() == set(BUILT_IN_BACKBONES)
    assert all(len(text) > 40 and text.endswith(".") for text in (*DATA_LICENCES.values(), *BACKBONE_LICENCES.values()))


def test_weights_that_the_user_gave_have_other_terms_than_published_ones() -> None:
    assert "ImageNet" in weights_licence("resnet101", None)
    assert "the user" in weights_licence("resnet101", "mine.pth")


def test_weights_of_a_librarys_network_are_under_the_terms_of_the_library() -> None:
    assert "resnet18.a1_in1k" in weights_licence("timm:resnet18.a1_in1k", None)
    assert "ImageNet" in weights_licence("torchvision:vgg16", None)
