import math
from dataclasses import replace

import pytest
import torch

from search.augmentation import OPERATIONS, Augmentation
from search.batches import ResidentBatches
from spaces.training import Training

CPU = torch.device("cpu")
SIDE = 6


def made(training, *, count=8, seed=0, epoch=1, size=(SIDE, SIDE)):
    order = torch.arange(count)
    return Augmentation(training, order, size, seed=seed, epoch=epoch, device=CPU)


@pytest.fixture
def numbered():
    """Eight images whose pixels are all different within an image, from 1, (N, H, W, C)."""
    pixels = torch.arange(1, SIDE * SIDE + 1, dtype=torch.uint8).reshape(1, SIDE, SIDE, 1)
    return pixels.repeat(8, 1, 1, 1) + torch.arange(8, dtype=torch.uint8)[:, None, None, None]


WHOLE = slice(0, 8)


def test_without_settings_images_are_as_they_are(numbered):
    augmentation = made(Training(batch_size=4))
    assert torch.equal(augmentation.gathered(numbered, WHOLE), numbered)
    floats = torch.randn(8, 1, SIDE, SIDE)
    assert torch.equal(augmentation.finished(floats, WHOLE), floats)
    assert augmentation.mixed(floats, 0)[1] == 1


def test_a_flip_mirrors_whole_images_about_half_of_them(numbered):
    augmentation = made(Training(flip="random"), count=8)
    mirrored = numbered.flip(2)
    kinds = []
    for image, plain, turned in zip(
        augmentation.gathered(numbered, WHOLE), numbered, mirrored, strict=True
    ):
        assert torch.equal(image, plain) or torch.equal(image, turned)
        kinds.append(torch.equal(image, turned))
    assert 0 < sum(kinds) < 8
    many = made(Training(flip="random"), count=4000)._flips
    assert 0.45 < many.double().mean() < 0.55


def test_an_alternating_flip_shows_both_sides_in_two_epochs(numbered):
    training = Training(flip="alternating")
    one = made(training, epoch=1).gathered(numbered, WHOLE)
    two = made(training, epoch=2).gathered(numbered, WHOLE)
    three = made(training, epoch=3).gathered(numbered, WHOLE)
    assert torch.equal(one, two.flip(2))
    assert torch.equal(one, three)
    assert not torch.equal(one, numbered)


def test_a_crop_is_a_shift_with_black_from_outside(numbered):
    training = Training(crop=2)
    augmentation = made(training)
    moved = augmentation.gathered(numbered, WHOLE)
    offsets = augmentation._offsets
    assert offsets.abs().max() == 2
    for image, plain, (down, right) in zip(moved, numbered, offsets.tolist(), strict=True):
        padded = torch.zeros(SIDE + 4, SIDE + 4, dtype=torch.uint8)
        padded[2:-2, 2:-2] = plain[..., 0]
        expected = padded[2 + down : 2 + down + SIDE, 2 + right : 2 + right + SIDE]
        assert torch.equal(image[..., 0], expected)
    drawn = made(training, count=5000)._offsets
    assert set(drawn.flatten().tolist()) == {-2, -1, 0, 1, 2}


def test_cutout_sets_a_square_to_the_mean():
    training = Training(cutout=2)
    augmentation = made(training)
    images = torch.ones(8, 3, SIDE, SIDE)
    cut = augmentation.finished(images, WHOLE)
    for image, (row, column) in zip(cut, augmentation._centres.tolist(), strict=True):
        holes = {(int(r), int(c)) for r, c in (image[0] == 0).nonzero()}
        square = {(row + i, column + j) for i in (-1, 0) for j in (-1, 0)}
        inside = {(r, c) for r, c in square if 0 <= r < SIDE and 0 <= c < SIDE}
        assert holes == inside
        assert torch.equal(image[0], image[2])
    assert torch.equal(images, torch.ones(8, 3, SIDE, SIDE))  # the batch itself is left alone


def test_a_resized_crop_of_the_whole_is_the_image_and_of_less_lies_inside():
    ramp = torch.linspace(-1, 1, SIDE).expand(8, 1, SIDE, SIDE).contiguous()
    smallest = made(Training(resized_crop=0.25))
    boxes = smallest._boxes
    width, height = boxes[:, 0, 0], boxes[:, 1, 1]
    assert ((width * height) >= 0.25 - 1e-6).all()
    assert (boxes[:, 0, 2].abs() + width <= 1 + 1e-6).all()
    assert (boxes[:, 1, 2].abs() + height <= 1 + 1e-6).all()
    cropped = smallest.finished(ramp, WHOLE)
    assert cropped.shape == ramp.shape
    assert cropped.min() >= -1
    assert cropped.max() <= 1
    # A ramp cut to a box of width w keeps its slope times w.
    slope = cropped[:, 0, 3, 3] - cropped[:, 0, 3, 2]
    assert torch.allclose(slope, width * 2 / (SIDE - 1), atol=1e-5)


def test_mixup_mixes_a_batch_with_its_reverse():
    augmentation = made(Training(batch_size=4, mixup=1.0))
    images = torch.randn(4, 1, SIDE, SIDE)
    mixed, share = augmentation.mixed(images, 1)
    assert 0 < share < 1
    assert torch.allclose(mixed, share * images + (1 - share) * images.flip(0), atol=1e-6)


def test_cutmix_pastes_a_patch_and_counts_its_area():
    training = Training(batch_size=4, cutmix=1.0)
    images = torch.arange(4.0)[:, None, None, None].expand(4, 1, 32, 32).clone()
    shares = []
    for epoch in range(1, 9):
        mixed, share = made(training, epoch=epoch, size=(32, 32)).mixed(images, 0)
        own = (mixed[0, 0] == 0).double().mean().item()
        assert own == pytest.approx(share)
        assert set(mixed[0].unique().tolist()) <= {0.0, 3.0}
        shares.append(share)
    assert len(set(shares)) > 4


def test_with_both_a_batch_takes_one_of_them():
    training = Training(batch_size=2, mixup=0.2, cutmix=1.0)
    augmentation = made(training, count=400)
    cuts = augmentation._mixing._cuts
    assert 0.4 < cuts.mean() < 0.6
    assert made(replace(training, mixup=0.0), count=400)._mixing._cuts.all()
    assert not made(replace(training, cutmix=0.0), count=400)._mixing._cuts.any()


@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_of_randaugment_keeps_shape_and_type(channels):
    generator = torch.Generator().manual_seed(0)
    size = (5, channels, 32, 24)
    images = torch.randint(40, 200, size, dtype=torch.uint8, generator=generator)
    changed = 0
    for operation in OPERATIONS:
        for sign in (1, -1):
            done = operation(images, 0.6, sign)
            assert done.shape == images.shape
            assert done.dtype == torch.uint8
            changed += not torch.equal(done, images)
    # Identity never changes anything, saturation nothing of a grey image.
    expected = len(OPERATIONS) - (2 if channels == 1 else 1)
    assert changed == 2 * expected


def test_randaugment_draws_for_every_image():
    generator = torch.Generator().manual_seed(0)
    one = torch.randint(256, (1, 12, 12, 3), dtype=torch.uint8, generator=generator)
    images = one.repeat(64, 1, 1, 1)
    augmentation = made(Training(rand_augment="2x9"), count=64, size=(12, 12))
    done = augmentation.gathered(images, slice(0, 64))
    assert done.shape == images.shape
    assert len({tuple(image.flatten().tolist()) for image in done}) > 32
    weaker = made(Training(rand_augment="2x1"), count=64, size=(12, 12))
    near = (weaker.gathered(images, slice(0, 64)).float() - images).abs().mean()
    assert near < (done.float() - images).abs().mean()


EVERYTHING = Training(
    batch_size=4,
    crop=1,
    flip="random",
    cutout=2,
    resized_crop=0.5,
    rand_augment="1x9",
    mixup=0.2,
    cutmix=1.0,
)


def batches_of(training, *, seed, epoch):
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(256, (11, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(11) % 3
    parts = {"train": images, "validation": images[:3], "test": images[:2]}
    batches = ResidentBatches(
        parts,
        {split: labels[: len(part)] for split, part in parts.items()},
        classes=3,
        mean=torch.full((3,), 127.5),
        deviation=torch.full((3,), 60.0),
        device=CPU,
    )
    return list(batches.train(training, seed=seed, epoch=epoch))


def test_all_chance_is_of_seed_and_epoch_alone():
    def equal(one, other):
        return all(torch.equal(a[0], b[0]) for a, b in zip(one, other, strict=True))

    first = batches_of(EVERYTHING, seed=3, epoch=2)
    torch.manual_seed(99)
    torch.rand(5)
    assert equal(first, batches_of(EVERYTHING, seed=3, epoch=2))
    assert not equal(first, batches_of(EVERYTHING, seed=4, epoch=2))
    assert not equal(first, batches_of(EVERYTHING, seed=3, epoch=3))


def test_one_augmentation_leaves_the_draws_of_the_others():
    with_cutout = made(replace(EVERYTHING, mixup=0.0))
    without = made(replace(EVERYTHING, cutout=0, mixup=0.0))
    assert torch.equal(with_cutout._flips, without._flips)
    assert torch.equal(with_cutout._offsets, without._offsets)


def test_batches_are_normalised_channels_last_and_leave_the_rest_out():
    batches = batches_of(Training(batch_size=4), seed=0, epoch=1)
    assert len(batches) == 2
    for images, labels, others, share in batches:
        assert images.shape == (4, 3, 8, 8)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.min() >= (0 - 127.5) / 60 - 1e-6
        assert images.max() <= (255 - 127.5) / 60 + 1e-6
        assert torch.equal(labels, others)
        assert share == 1
    mixed = batches_of(EVERYTHING, seed=0, epoch=1)
    assert any(share < 1 for *_, share in mixed)
    for _, labels, others, share in mixed:
        if share < 1:
            assert torch.equal(others, labels.flip(0))
    assert not math.isclose(mixed[0][3], mixed[1][3])
