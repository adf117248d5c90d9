"""Frozen networks come from files that are data; everything else is refused in a sentence."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from schemas.errors import UsageError
from training.networks.backbones import SqueezeNet
from training.networks.frozen import FrozenFile, load, read


@pytest.fixture
def weights(tmp_path: Path):
    """A random stand-in for SqueezeNet."""
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_file(SqueezeNet().state_dict(), path)
    return path


def refusal(path, **more):
    with pytest.raises(UsageError) as caught:
        load("squeezenet1_1", FrozenFile(path=str(path), **more), key="losses.perceptual.file")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_network_comes_frozen_and_in_evaluation_mode(weights):
    network = load("squeezenet1_1", FrozenFile(path=str(weights)), key="k")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(network.features[0].weight, read(FrozenFile(path=str(weights)), key="k")["features.0.weight"])


def test_pickles_of_tensors_are_read_and_halves_are_widened(tmp_path):
    state = {name: value.half() for name, value in SqueezeNet().state_dict().items()}
    torch.save(state | {"classifier.1.weight": torch.zeros(2)}, tmp_path / "net.pth")
    network = load("squeezenet1_1", FrozenFile(path=str(tmp_path / "net.pth")), key="k")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


class Evil:
    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_pickle_that_would_run_something_is_refused_and_does_not_run(tmp_path, capsys, protocol):
    path = tmp_path / "net.pth"
    if protocol == "torch":
        torch.save({"features.0.weight": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps({"features.0.weight": Evil()}, protocol=2))
    assert "could run a program when read" in refusal(path)
    assert "it ran" not in capsys.readouterr().out


def test_other_content_is_refused_by_its_checksum(weights):
    assert "has SHA-256" in refusal(weights, sha256="0" * 64)


def test_damaged_files_are_refused(tmp_path, weights):
    for name in ("cut.safetensors", "cut.pth"):
        (tmp_path / name).write_bytes(weights.read_bytes()[:1000])
        refusal(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    assert "not a plain table of tensors" in refusal(tmp_path / "list.pth")


def test_another_network_is_refused_by_its_first_tensor(tmp_path):
    state = SqueezeNet().state_dict()
    state["features.0.weight"] = torch.zeros(64, 3, 7, 7)
    save_file(state, tmp_path / "net.safetensors")
    assert "features.0.weight (expected (64, 3, 3, 3), found (64, 3, 7, 7))" in refusal(tmp_path / "net.safetensors")
    del state["features.0.weight"]
    save_file(state, tmp_path / "net.safetensors")
    assert "found none" in refusal(tmp_path / "net.safetensors")
    save_file(SqueezeNet().state_dict() | {"extra": torch.zeros(1)}, tmp_path / "net.safetensors")
    assert "extra (expected none" in refusal(tmp_path / "net.safetensors")
