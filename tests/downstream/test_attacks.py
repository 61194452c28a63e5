"""Attacks on images, without any network: what a budget means, and what known gradients do."""

import pytest
import torch

from seitpp.downstream.attacks import Attack, eight_bit, perturbed, projected_descent


def pixels(*values):
    """One image of three pixels in a row, grey, in 255ths."""
    return (torch.tensor(values, dtype=torch.float32) / 255).expand(1, 3, 1, -1).clone()


def in_255ths(images):
    return (images[0, 0, 0] * 255).tolist()


def test_fgsm_goes_to_the_corner_of_the_budget_that_the_gradient_points_to():
    gradient = torch.tensor([1e-9, -3.0, 0.0]).expand(1, 3, 1, -1)
    moved = perturbed(pixels(100, 100, 100), gradient, 4 / 255)
    assert in_255ths(moved) == pytest.approx([104, 96, 100], abs=1e-4)


def test_pixels_stay_between_black_and_white():
    moved = perturbed(pixels(1, 253, 255), torch.tensor([-1.0, 1.0, -1.0]).expand(1, 3, 1, -1), 4 / 255)
    assert in_255ths(moved) == pytest.approx([0, 255, 251], abs=1e-4)


def test_pgd_follows_a_known_gradient_to_where_it_turns():
    """The loss -(x - 102)² is largest at 102; the step is 1, the budget 4."""
    images = pixels(100, 90, 110)
    moved = projected_descent(
        images, lambda x: -2 * (x - 102 / 255), 4 / 255, steps=6, step_size=1 / 255, start=torch.zeros_like(images)
    )  # fmt: skip
    first, *others = in_255ths(moved)
    assert first == pytest.approx(102, abs=1.01)  # it swings about the top
    assert others == pytest.approx([94, 106], abs=1e-4)  # as near as the budget lets it


def test_pgd_begins_within_the_budget_where_it_is_told_to():
    moved = projected_descent(
        pixels(100, 100, 2), torch.zeros_like, 8 / 255, steps=1, step_size=1.0,
        start=torch.tensor([0.5, -1.0, -1.0]).expand(1, 3, 1, -1),
    )  # fmt: skip
    assert in_255ths(moved) == pytest.approx([104, 92, 0], abs=1e-4)


@pytest.mark.parametrize("kind", ["random", "fgsm", "pgd"])
@pytest.mark.parametrize("budget", [0, 1, 7, 255])
def test_no_pixel_of_the_file_moves_by_more_than_the_budget(kind, budget):
    generator = torch.Generator().manual_seed(budget)
    before = torch.randint(256, (3, 3, 5, 4), generator=generator, dtype=torch.uint8)
    directions = [torch.randn(before.shape, generator=generator) for _ in range(10)]
    attack = Attack(kind=kind, budget=budget, steps=10)
    moved = attack(before / 255.0, lambda _: directions.pop(), directions[0].tanh())
    assert 0 <= moved.min() <= moved.max() <= 1
    after = eight_bit(moved)
    distance = (after.int() - before.int()).abs()
    assert distance.max() == budget if budget < 255 else distance.max() <= 255


def test_a_step_of_pgd_is_its_share_of_the_budget():
    seen = []

    def gradient(images):
        seen.append(in_255ths(images))
        return torch.ones_like(images)

    Attack(kind="pgd", budget=8, steps=4, step_size=2.0)(pixels(50, 60, 70), gradient, torch.zeros(1, 3, 1, 3))
    assert [step[0] for step in seen] == pytest.approx([50, 54, 58, 58], abs=1e-4)


def test_an_attack_is_named_by_all_that_tells_it_from_others_of_a_run():
    names = {
        Attack(kind="random", budget=1).name, Attack(kind="fgsm", budget=4, restarts=3).name,
        Attack(kind="pgd", budget=4).name, Attack(kind="pgd", budget=4, steps=20, restarts=3).name,
    }  # fmt: skip
    assert names == {"random_eps1", "fgsm_eps4", "pgd10_eps4", "pgd20x3_eps4"}


def test_what_has_no_random_start_is_not_started_again():
    starts = {kind: Attack(kind=kind, budget=2, restarts=5).starts for kind in ("random", "fgsm", "pgd")}
    assert starts == {"random": 5, "fgsm": 1, "pgd": 5}
