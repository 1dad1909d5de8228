from resolution_scaling.vit.scaling import scale_vit

from ..vits import logits, torchvision_vit


def test_hooks_on_the_patch_embedding_of_torchvision_stay():
    model, seen = torchvision_vit(), []
    model.conv_proj.register_forward_hook(lambda module, args, output: seen.append(output.shape[-2:]))
    logits(scale_vit(model, patch_size=12, grid=8))
    assert seen == [(8, 8)]
