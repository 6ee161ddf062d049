import torch

from dhpf.model.backbone_layers import PackedConv2d


def test_packed_weights_give_what_plain_ones_give() -> None:
    plain = torch.nn.Conv2d(24, 48, 3, stride=2, padding=1, groups=4)
    plain.requires_grad_(False)
    packed = PackedConv2d.of(plain)
    for shape in ((2, 24, 30, 30), (1, 24, 47, 13)):  # packed for the first, used for both
        images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        assert torch.allclose(packed(images), plain(images), atol=1e-5)
        assert packed(images).is_contiguous(memory_format=torch.channels_last)
    assert packed.double()(images.double()).dtype == torch.float64
