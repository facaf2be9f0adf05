"""Weights: where they are looked for, what is said when they are missing, cut off, others or no weights at all."""

import pickle
import shutil
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from symskew.metrics import every_source
from symskew.metrics.kinds import sha256
from symskew.metrics.weights import Site, Source, is_there, lacking, load_strictly, locate, published, read

HUB = Source(
    "tower", ("model.safetensors", "pytorch_model.bin"), 1_710_000_000, "MIT", repo="one/tower", beside=("config.json",)
)
URL = Source("head", ("head.pth",), 3_700_000, "Apache-2.0", url="https://example.org/head.pth")
STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No weights on this machine, and no way to any other."""

    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.delenv("SYMSKEW_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def tower(folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file(STATE, folder / "model.safetensors")
    (folder / "config.json").write_text('{"width": 3}')
    return folder / "model.safetensors"


def in_hub_cache(folder: Path, content: bytes, digest: str) -> Path:
    """As the hub lays it out: a snapshot of links to files that are named after their hashes."""
    root = folder / "hub" / "models--one--tower"
    snapshot = root / "snapshots" / ("0" * 40)
    for each in (root / "blobs", root / "refs", snapshot):
        each.mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    (root / "blobs" / digest).write_bytes(content)
    (snapshot / "model.safetensors").symlink_to(root / "blobs" / digest)
    (snapshot / "config.json").write_text("{}")
    return snapshot / "model.safetensors"


def test_missing_weights_are_a_sentence_with_the_download(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        locate(HUB, Site())
    assert str(caught.value) == (
        "tower: the weights are not on this machine; get it by: hf download one/tower model.safetensors config.json "
        "(1.7 GB, licence MIT); or put model.safetensors and config.json into a folder tower of the folder that "
        "$SYMSKEW_WEIGHTS names; or name a file, a folder or a hub id under weights: {tower: PLACE}"
    )
    assert lacking(HUB, Site()) == str(caught.value)
    assert not is_there(HUB, Site())
    place = tmp_path / "torch" / "hub" / "checkpoints" / "head.pth"
    with pytest.raises(
        FileNotFoundError, match=rf"head: .*curl -L --create-dirs -o {place} https://example.org/head.pth"
    ):
        locate(URL, Site())


def test_a_place_is_a_file_or_a_folder(tmp_path):
    path = tower(tmp_path / "mine")
    assert locate(HUB, Site.of({"tower": tmp_path / "mine"})) == path
    assert locate(HUB, Site.of({"tower": path})) == path
    renamed = path.rename(path.with_name("other.safetensors"))
    assert locate(HUB, Site.of({"tower": renamed})) == renamed
    with pytest.raises(
        FileNotFoundError, match=r"tower: .*/mine has no model.safetensors or pytorch_model.bin; get it"
    ):
        locate(HUB, Site.of({"tower": tmp_path / "mine"}))
    (tmp_path / "mine" / "config.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"other.safetensors is there, and config.json not beside it; get it by"
    ):
        locate(HUB, Site.of({"tower": renamed}))


def test_the_folder_of_all_weights_comes_before_the_caches(tmp_path, monkeypatch):
    cached = in_hub_cache(tmp_path, b"anything", sha256_of(tmp_path, b"anything"))
    assert locate(HUB, Site()) == cached
    monkeypatch.setenv("SYMSKEW_WEIGHTS", str(tmp_path / "weights"))
    assert locate(HUB, Site()) == cached
    path = tower(tmp_path / "weights" / "tower")
    assert locate(HUB, Site()) == path
    assert is_there(HUB, Site())
    assert lacking(HUB, Site()) == ""


def sha256_of(folder: Path, content: bytes) -> str:
    (folder / "content").write_bytes(content)
    return sha256(folder / "content")


def test_what_the_hub_cut_off_is_found_by_the_hash_that_it_is_named_after(tmp_path):
    digest = sha256_of(tmp_path, b"all of it")
    in_hub_cache(tmp_path, b"all of", digest)
    with pytest.raises(
        ValueError, match=rf"is not the published file: its SHA-256 is .*, not {digest} \(6 bytes, publ"
    ):
        locate(HUB, Site())


def test_known_files_are_held_to_their_hashes_unless_a_place_was_named(tmp_path):
    digest = sha256_of(tmp_path, b"published")
    source = Source(
        "head", ("head.pth",), 9, "MIT", url="https://example.org/head.pth", digests={"head.pth": digest[:8]}
    )
    place = tmp_path / "torch" / "hub" / "checkpoints" / "head.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    with pytest.raises(
        ValueError, match=rf"head: .*not {digest[:8]} \(4 bytes, published are about 9\); delete it, then"
    ):
        locate(source, Site())
    assert locate(source, Site.of({"head": place})) == place
    with pytest.raises(ValueError, match=rf"head: .* is not the published file: .*not {digest[:8]} \(4 bytes"):
        published(source, place.rename(place.with_name("renamed.pth")))  # where no other file would do
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "content", place := other / "head.pth")
    assert locate(source, Site.of({"head": other})) == place


def test_the_network_is_used_for_a_hub_id_alone(tmp_path, monkeypatch):
    site = Site.of({"tower": "somebody/else@v2"})
    assert lacking(HUB, site) == ""  # a run would download it
    asked = []

    def download(repo, name, revision=None, local_files_only=False):
        asked.append((repo, name, revision, local_files_only))
        raise OSError("no route to host\nTraceback")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(
        FileNotFoundError, match=r"tower: somebody/else@v2 could not be had from the hub: no route to h"
    ):
        locate(HUB, site)
    assert asked == [("somebody/else", "config.json", "v2", False)]
    assert not is_there(HUB, site)
    monkeypatch.setenv("SYMSKEW_OFFLINE", "1")
    with pytest.raises(
        FileNotFoundError, match=r"tower: somebody/else@v2 is not in the hub's cache: no route to host; g"
    ):
        locate(HUB, site)
    assert "is not in the hub's cache" in lacking(HUB, site)
    assert [each[-1] for each in asked] == [False, True, True, True]
    for name in ("nowhere", "/tmp/one/tower", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=f"tower: {name} is not there; get it by"):
            locate(HUB, Site.of({"tower": name}))


def test_weights_are_read_from_both_formats(tmp_path):
    torch.save(STATE, tmp_path / "head.pth")
    save_file(STATE, tmp_path / "head.safetensors")
    for name in ("head.pth", "head.safetensors"):
        found = read(tmp_path / name, URL)
        assert found.keys() == STATE.keys()
        assert torch.equal(found["weight"], STATE["weight"])


class Code:
    """What a pickle can do: anything, when it is loaded."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_no_code_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Code()}, tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"weight": Code()}))
    for name in ("new.pth", "old.pth"):
        with pytest.raises(
            ValueError, match=rf"head: .*{name} .*(could run code; it is refused|cannot be read as weights)"
        ):
            read(tmp_path / name, URL)
    assert not (tmp_path / "ran").exists()


def test_files_that_are_no_weights_are_told_apart(tmp_path):
    torch.save(STATE, tmp_path / "whole.pth")
    save_file(STATE, tmp_path / "whole.safetensors")
    for kind in ("pth", "safetensors"):
        content = (tmp_path / f"whole.{kind}").read_bytes()
        for name, part in (("cut", content[: len(content) // 2]), ("empty", b""), ("noise", b"\x80\x02" + b"x" * 99)):
            (tmp_path / f"{name}.{kind}").write_bytes(part)
            with pytest.raises(ValueError, match=rf"head: .*{name}.{kind} \({len(part)} bytes, .* (cut off|refused)"):
                read(tmp_path / f"{name}.{kind}", URL)
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>404</html>")
    with pytest.raises(ValueError, match="is a web page, not weights; get it by: curl"):
        read(tmp_path / "page.pth", URL)
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:…\n")
    with pytest.raises(ValueError, match="is the pointer that stands for the weights in a git repository"):
        read(tmp_path / "pointer.pth", URL)
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="it holds a Tensor"):
        read(tmp_path / "tensor.pth", URL)


def test_loading_is_strict(tmp_path):
    layer = nn.Linear(3, 2)
    load_strictly(layer, STATE, URL, tmp_path)
    assert torch.equal(layer.weight, STATE["weight"])
    for state, says in (
        ({"weight": STATE["weight"]}, "there is no bias"),
        ({**STATE, "more": STATE["bias"]}, "more is unknown"),
        ({**STATE, "bias": torch.ones(3)}, r"bias is \(3,\) instead of \(2,\)"),
        ({**STATE, "bias": "ones"}, "bias is no tensor"),
    ):
        with pytest.raises(
            ValueError, match=rf"head: .* holds other weights than Linear needs: {says} \(and 0 more such"
        ):
            load_strictly(layer, state, URL, tmp_path)


def test_a_site_can_be_sent_and_compared():
    site = Site.of({"b": Path("/x"), "a": "/y"}, device="cuda")
    assert pickle.loads(pickle.dumps(site)) == site
    assert site == Site("cuda", (("a", "/y"), ("b", "/x")))
    assert len({site, Site.of({"a": "/y", "b": "/x"}, device="cuda")}) == 1


@pytest.mark.parametrize("source", every_source().values(), ids=lambda source: source.name)
def test_every_source_says_where_it_is_and_under_which_licence(source):
    assert source.licence
    assert source.size > 100_000
    assert source.page.startswith("https://")
    assert bool(source.repo) != bool(source.url)
    assert set(source.digests) <= {*source.files, *source.beside}
