"""Small batches for the training loop: painted faces that move by known amounts, with the labels that go with them."""

import torch

from training.networks.geometry import coordinate_grid


def face(x, y, hue, size=64):
    """A face at (x, y) in [-1, 1] on a shaded background: head, eyes and mouth, antialiased."""
    grid = coordinate_grid(size, size)
    shade = 0.3 + 0.2 * grid[..., 1:].expand(-1, -1, 3)

    def disc(centre_x, centre_y, radius_x, radius_y):
        away = ((grid[..., 0] - x - centre_x) / radius_x) ** 2 + ((grid[..., 1] - y - centre_y) / radius_y) ** 2
        return torch.sigmoid((1 - away) * 12)[..., None]

    picture = shade
    skin = torch.tensor([0.9, 0.5 + 0.4 * hue, 0.4])
    for mask, colour in (
        (disc(0, 0, 0.5, 0.65), skin),
        (disc(-0.18, -0.15, 0.09, 0.07), torch.tensor([0.1, 0.1, 0.3 + 0.5 * hue])),
        (disc(0.18, -0.15, 0.09, 0.07), torch.tensor([0.1, 0.1, 0.3 + 0.5 * hue])),
        (disc(0, 0.3, 0.2, 0.07), torch.tensor([0.7, 0.1, 0.2])),
    ):
        picture = picture * (1 - mask) + mask * colour
    return (picture.permute(2, 0, 1) * 255).round().byte()


def pairs(count, seed=0, size=64):
    """A batch of ``count`` pairs as ``training.data.contract`` has it."""
    numbers = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed))
    places = (numbers[:, :4] - 0.5) * 0.5
    hues = numbers[:, 4].tolist()
    sides = [
        torch.stack([face(float(x), float(y), hue, size) for (x, y), hue in zip(places[:, part], hues, strict=True)])
        for part in (slice(0, 2), slice(2, 4))
    ]
    pose = torch.zeros(count, 7)
    pose[:, 6] = 1
    batch = {"source": sides[0], "driving": sides[1], "domain": torch.zeros(count, dtype=torch.long)}
    for side in ("source", "driving"):
        batch[f"{side}_pose"] = pose.clone()
        batch[f"{side}_landmarks"] = torch.zeros(count, 68, 3)
        batch[f"{side}_valid"] = torch.ones(count, dtype=torch.bool)
    return batch


class Pairs:
    """Endless batches that know their place; each is made from its number alone."""

    def __init__(self, count, size=64):
        self.count, self.size, self.number = count, size, 0

    def __iter__(self):
        while True:
            self.number += 1
            yield pairs(self.count, self.number - 1, self.size)

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = state["number"]
