"""Checkpoints and claims: every kind of damage is seen, the file before is used, nobody shares a folder."""

import hashlib
import os
import pickle
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mammo_lib import paths
from mammo_lib.training import checkpoint, folder

CONFIG = {"training": {"learning_rate": 0.001, "batch_size": 8}, "shares": (0.8, 0.2)}


def state(number=1.0):
    return {
        "config": CONFIG,
        "epoch": 3,
        "network": {"weight": torch.full((7, 5), float(number))},
        "epochs": [{"loss": 0.1}],
    }


def names(place):
    return sorted(path.name for path in place.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path / "last.pt", state())
    found = checkpoint.load(tmp_path / "last.pt", CONFIG)
    assert torch.equal(found.pop("network")["weight"], torch.ones(7, 5))
    assert found == {"config": CONFIG, "epoch": 3, "epochs": [{"loss": 0.1}]}


def test_torch_alone_opens_it_and_the_checksum_is_behind(tmp_path):
    checkpoint.save(tmp_path / "last.pt", state())
    assert torch.load(tmp_path / "last.pt", weights_only=True)["epoch"] == 3
    content = (tmp_path / "last.pt").read_bytes()
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()


def test_equal_states_are_equal_files(tmp_path):
    checkpoint.save(tmp_path / "one.pt", state())
    checkpoint.save(tmp_path / "two.pt", state())
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_the_one_before_is_kept(tmp_path):
    for number in (1, 2, 3):
        checkpoint.save(tmp_path / "last.pt", state(number))
    assert checkpoint.load(tmp_path / "last.previous.pt")["network"]["weight"][0, 0] == 2
    assert names(tmp_path) == ["last.previous.pt", "last.pt"]


def test_best_keeps_none_before_it(tmp_path):
    checkpoint.save(tmp_path / "best.pt", state(1), keep_previous=False)
    checkpoint.save(tmp_path / "best.pt", state(2), keep_previous=False)
    assert names(tmp_path) == ["best.pt"]


def damaged_copies(content):
    """Truncations, and one flipped bit in every region of the file."""
    rng = random.Random(0)
    for length in (0, 1, len(content) // 2, len(content) - 1):
        yield content[:length]
    for position in [0, len(content) - 1, *(rng.randrange(len(content)) for _ in range(150))]:
        copy = bytearray(content)
        copy[position] ^= 1 << rng.randrange(8)
        yield bytes(copy)


def test_every_damage_is_seen(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1))
    checkpoint.save(path, state(2))
    content = path.read_bytes()
    for copy in damaged_copies(content):
        path.write_bytes(copy)
        with pytest.warns(UserWarning, match=r"last\.pt: damaged .*last\.previous\.pt"):
            assert checkpoint.load(path, CONFIG)["network"]["weight"].unique() == 1


def test_a_crash_between_the_two_renames_leaves_the_one_before(tmp_path):
    checkpoint.save(tmp_path / "last.pt", state(1))
    (tmp_path / "last.pt").rename(tmp_path / "last.previous.pt")
    assert checkpoint.exists(tmp_path / "last.pt")
    with pytest.warns(UserWarning, match="missing"):
        assert checkpoint.load(tmp_path / "last.pt", CONFIG)["epoch"] == 3


def test_after_damage_the_next_save_does_not_cost_the_whole_one(tmp_path, monkeypatch):
    """Killed between the renames of the save after a load that found last.pt damaged."""
    for number in (1, 2):
        checkpoint.save(tmp_path / "last.pt", state(number))
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:-1])
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.load(tmp_path / "last.pt", CONFIG)["network"]["weight"].unique().tolist() == [1]
    replace = Path.replace

    def killed(path, target):
        if Path(target).name == "last.pt":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "last.pt", state(3))
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="missing"):
        assert checkpoint.load(tmp_path / "last.pt", CONFIG)["network"]["weight"].unique().tolist() == [1]


def test_nothing_whole_and_nothing_at_all_are_errors(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(checkpoint.CheckpointDamaged, match=r"last\.pt"):
        checkpoint.load(tmp_path / "last.pt")
    with pytest.raises(FileNotFoundError, match=r"best\.pt"):
        checkpoint.load(tmp_path / "best.pt")


def test_another_config_is_refused_by_field(tmp_path):
    checkpoint.save(tmp_path / "last.pt", state())
    other = {**CONFIG, "training": {"learning_rate": 0.01, "batch_size": 8}}
    with pytest.raises(checkpoint.CheckpointMismatch, match=r"training\.learning_rate: was 0\.001, is 0\.01"):
        checkpoint.load(tmp_path / "last.pt", other)


def test_a_copy_does_not_see_what_comes_after_and_its_memory_is_used_again():
    weight = torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    tree = {"network": {"weight": weight}, "optimiser": {0: {"step": torch.tensor(3.0)}}, "epoch": 1}
    copy = checkpoint.host_copy(tree)
    expected = weight.clone()
    weight += 1
    assert torch.equal(copy["network"]["weight"], expected)
    assert copy["network"]["weight"].stride() == weight.stride()
    assert copy["optimiser"][0]["step"] == 3
    assert copy["epoch"] == 1
    again = checkpoint.host_copy(tree | {"epoch": 2}, copy)
    assert torch.equal(again["network"]["weight"], weight)
    assert again["network"]["weight"].data_ptr() == copy["network"]["weight"].data_ptr()
    assert again["epoch"] == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs a GPU")
def test_a_copy_from_a_gpu_is_in_pinned_memory_and_complete():
    weight = torch.rand(64, 3, 2, 2, device="cuda").contiguous(memory_format=torch.channels_last)
    copy = checkpoint.host_copy({"weight": weight})
    weight_before = weight.cpu()
    weight.zero_()
    assert copy["weight"].is_pinned()
    assert copy["weight"].stride() == weight.stride()
    assert torch.equal(copy["weight"], weight_before)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1))

    def full(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, state(2))
    monkeypatch.undo()
    assert checkpoint.load(path)["network"]["weight"][0, 0] == 1
    assert names(tmp_path) == ["last.pt"]


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path / "last.pt", {"config": Malicious()})
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "executed").exists()


def test_a_claim_holds_against_others_and_ends_with_its_process(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from mammo_lib.training.folder import claim\n"
        "with claim(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        assert folder.is_claimed(tmp_path)
        with pytest.raises(folder.FolderBusy, match=tmp_path.name), folder.claim(tmp_path):
            pass
    finally:
        holder.kill()
        holder.wait()
    left = tmp_path / f".last.pt.{socket.gethostname()}-{holder.pid}-1.part"
    far = tmp_path / f".last.pt.elsewhere-{holder.pid}-1.part"
    left.touch()
    far.touch()
    assert not folder.is_claimed(tmp_path)
    with paths.atomic_write(tmp_path / "gradcam.npz") as part:  # another step's, which is at work in the same folder
        part.write_bytes(b"maps")
        with folder.claim(tmp_path):
            assert not left.exists()
            assert far.exists(), "whether its writer lives cannot be told from here"
    assert (tmp_path / "gradcam.npz").read_bytes() == b"maps"


def test_asking_who_holds_a_folder_does_not_keep_anybody_out(tmp_path):
    """`is_claimed` holds the lock itself for a moment: claims come while another process does nothing but ask."""
    with folder.claim(tmp_path):
        pass
    script = (
        "import sys; from pathlib import Path; from mammo_lib.training.folder import is_claimed\n"
        "print('asking', flush=True)\n"
        "while True: is_claimed(Path(sys.argv[1]))"
    )
    asking = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert asking.stdout.readline() == "asking\n"
        for _ in range(300):
            with folder.claim(tmp_path):
                pass
    finally:
        asking.kill()
        asking.wait()
