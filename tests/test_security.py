"""Files that anybody may have written cannot run code, leave their folder, fill the memory or reach the network."""

import ast
import io
import json
import pickle
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image, PngImagePlugin

from folders import ensemble_folder
from symskew.checkpoint import find_parts
from symskew.cli.app import run
from symskew.configured import Heads
from symskew.generation import request_of
from symskew.images import RECORD_KEY, read_record
from symskew.metrics.weights import Source, read
from symskew.models import find_model, load_model
from symskew.study import Store, Study
from symskew.study.engine import Pool, closing
from symskew.study.frames import Results
from symskew.study.work import Outfit
from symskew.study.written import read_yaml

SOURCE = Path(__file__).parent.parent / "src" / "symskew"
STUDY = {"model": "ensemble-sdxl", "prompts": {"mine": ["a red three"]}, "settings": {"vanilla": {}}}
FORBIDDEN = {"eval", "exec", "compile", "__import__", "input"}
MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "runpy", "code"}
CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "torch.hub.load"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ensemble_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


@pytest.fixture
def trap(tmp_path):
    """A file that is there if an attack has worked, and an object that makes it when it is unpickled."""
    sprung = tmp_path / "sprung"

    class Payload:
        def __reduce__(self):
            return open, (str(sprung), "w")

    return sprung, Payload()


# The source


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id if isinstance(node, ast.Name) else "?", *reversed(parts)])


def dangers(tree):
    """What a module must not do, each with its line."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"{node.lineno}: import of {n}" for n in names if n.split(".")[0] in MODULES)  # pyright: ignore
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func), {each.arg: each.value for each in node.keywords}

        def says(argument, value, given=given):
            return isinstance(given.get(argument), ast.Constant) and given[argument].value is value  # pyright: ignore

        if name in FORBIDDEN or name in CALLS:
            yield f"{node.lineno}: {name}"
        if name.endswith("torch.load") and not says("weights_only", True):
            yield f"{node.lineno}: torch.load without weights_only=True"
        if name.endswith(("np.load", "numpy.load")) and "allow_pickle" in given and not says("allow_pickle", False):
            yield f"{node.lineno}: np.load with pickles"
        if "shell" in given and not says("shell", False):
            yield f"{node.lineno}: a shell"
        if "trust_remote_code" in given or "custom_pipeline" in given:
            yield f"{node.lineno}: code of others"
        if name.endswith(("read_pickle", "Unpickler")):
            yield f"{node.lineno}: {name}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "eval('1')", "os.system('x')", "yaml.load(t, L)", "torch.load(p)",
        "torch.load(p, weights_only=False)", "subprocess.run('x', shell=True)", "np.load(p, allow_pickle=True)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)", "pd.read_pickle(p)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(code):
    assert list(dangers(ast.parse(code)))


def test_nothing_here_unpickles_evaluates_or_starts_a_shell():
    found = {
        str(path.relative_to(SOURCE)): list(dangers(ast.parse(path.read_text(encoding="utf-8"))))
        for path in SOURCE.rglob("*.py")
    }
    assert len(found) > 100
    assert {path: said for path, said in found.items() if said} == {}


# Study files

MANY = list(range(1, 1000))
LAUGHS = [
    "a0: &a0 [x, x, x, x, x, x, x, x, x, x]",
    *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)),
]


def nested(levels, inside="1"):
    return "[" * levels + inside + "]" * levels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("!!python/name:os.system ''", "could not determine a constructor"),
        ("\n".join(LAUGHS), "it stands for more than 2,000,000 values"),
        ("a: &a [*a]", "\\*a stands for nothing, or for itself"),
        ("[" * 100_000, "nested more than 32 levels deep"),
        ("a: {" * 100_000, "nested more than 32 levels deep"),
        ("- - " * 100_000, "nested more than 32 levels deep"),
        (f"a: &a {nested(12)}\nb: &b {nested(12, '*a')}\nc: {nested(12, '*b')}", "nested more than 32 levels deep"),
        (f"a: {'9' * 1_000_000}", "an integer has too many digits"),
        (f"a: 0x{'f' * 1_000_000}", "an integer has too many digits"),
        (f"a: {':'.join(['1'] * 300_000)}", "an integer has too many digits"),
        ("a: 1\na: 2", "'a' is there twice"),
        ("a: 2001-99-99", "month must be in 1..12"),
    ],
)  # fmt: skip
def test_a_study_file_is_plain_values_within_bounds(text, message, tmp_path):
    (tmp_path / "study.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(ValueError, match=rf"study\.yaml: .*{message}"):
        Study.read(tmp_path / "study.yaml")
    assert time.process_time() - began < 20


def test_aliases_that_stay_small_are_as_good_as_what_they_stand_for():
    assert read_yaml("a: &a {b: 1}\nc: {<<: *a, d: [*a, *a]}") == {"a": {"b": 1}, "c": {"b": 1, "d": [{"b": 1}] * 2}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../../mine"}, "'../../mine' cannot be a name"),
        ({"name": "/tmp/mine"}, "'/tmp/mine' cannot be a name"),
        ({"name": ".."}, "'..' cannot be a name"),
        ({"prompts": {"../../x": ["a"]}}, "'../../x' cannot be a name"),
        ({"prompts": {"a\\b": ["a"]}}, "cannot be a name"),
        ({"prompts": {"x": {"file": "../secret.txt"}}}, "the file ../secret.txt lies outside of the study's folder"),
        ({"prompts": {"x": {"file": "/etc/passwd"}}}, "the file /etc/passwd lies outside of the study's folder"),
        ({"prompts": {"x": {"file": "link.txt"}}}, "the file link.txt lies outside of the study's folder"),
        ({"prompts": {"x": {"coco": {"count": 1, "file": "../c.json"}}}}, "../c.json lies outside of the study's"),
        ({"settings": {"s": {"alpha": MANY, "beta": MANY}}}, "a grid of 998,001 settings, and there can be 1,000"),
        ({"seeds": {"eval": "0-999999"}, "prompts": {"x": MANY[:101]}}, "asks for 101,000,000 samples"),
        ({"seeds": {"eval": "0-99999999999999999999"}}, "expected numbers and ranges"),
    ],
)  # fmt: skip
def test_a_study_stays_in_its_folder_and_in_proportion(changes, message, tmp_path):
    (tmp_path / "secret.txt").write_text("a secret")
    home = tmp_path / "home"
    home.mkdir()
    (home / "link.txt").symlink_to(tmp_path / "secret.txt")
    (home / "study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}))
    with pytest.raises(ValueError, match=re.escape(message)):
        Study.read(home / "study.yaml")


def test_ids_from_a_folder_name_no_files_outside_of_it(tmp_path):
    store = Store(tmp_path / "run")
    for part in ("../../x", "..", "a/b", "a\\b", "", "x\0"):
        for use in (
            lambda part=part: store.path("samples", part, "unit"),
            lambda part=part: store.path("samples", "a", part + "/"),
            lambda part=part: store.keep_text("x", "failures", part),
            lambda part=part: store.done("scores", part),
        ):
            with pytest.raises(ValueError, match="is no name of a file in it"):
                use()
    (tmp_path / "run" / "settings").mkdir(parents=True)
    (tmp_path / "run" / "settings" / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep.json is damaged: deep.json is nested too deeply"):
        store.descriptions()
    (tmp_path / "run" / "study.yaml").write_text("\n".join(LAUGHS))
    with pytest.raises(ValueError, match="stands for more than"):
        Results.of(tmp_path / "run")


# Models


def test_a_model_cannot_bring_code(copy, trap):
    sprung, _ = trap
    (copy / "evil.py").write_text(f"open({str(sprung)!r}, 'w')\nclass Evil: pass\n")
    index = json.loads((copy / "model_index.json").read_text())
    for change, message in (
        (
            {"_class_name": ["evil", "Evil"]},
            r"a pipeline of the class \['evil', 'Evil'\], which diffusers does not have",
        ),
        ({"_class_name": "load_image"}, "a pipeline of the class load_image, which diffusers does not have"),
        (
            {"unet": ["evil", "Evil"]},
            r"its unet is \['evil', 'Evil'\], of neither diffusers nor transformers; code that",
        ),
        ({"unet": ["subprocess", "Popen"]}, "of neither diffusers nor transformers"),
        ({"vae": ["..", "Evil"]}, "of neither diffusers nor transformers"),
        ({"image_encoder": ["evil", "Evil"]}, "of neither diffusers nor transformers"),
    ):
        (copy / "model_index.json").write_text(json.dumps(index | change))
        with pytest.raises(ValueError, match=message):
            load_model(str(copy))
    assert not sprung.exists()


def test_weights_are_read_from_safetensors_alone(copy, trap, no_network):
    sprung, payload = trap
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match=r"cannot be loaded, .*; weights are read from safetensors alone"):
        load_model(str(copy))
    torch.save({"x": payload}, copy / "evil.pth")
    with pytest.raises(ValueError, match="loading that could run code; it is refused"):
        read(copy / "evil.pth", Source("evil", ("evil.pth",), 1, "none", url="x"))
    assert not sprung.exists()
    assert not no_network


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sha256": {"../../secret": "x"}}', "../../secret lies outside of the model's folder"),
        ('{"sha256": {"/dev/zero": "x"}}', "/dev/zero lies outside of the model's folder"),
        ('{"sha256": ["x"]}', "sha256 must be names of files with their hashes"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "should hold a dict"),
    ],
)
def test_what_a_model_says_of_itself_stays_in_its_folder(copy, text, message):
    (copy / "symskew.json").write_text(text)
    with pytest.raises(ValueError, match=rf"symskew.json is damaged: .*{re.escape(message)}"):
        find_model(str(copy))


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/dev/zero", "..", 3])
def test_an_index_of_shards_names_files_beside_it(name, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="which is none beside it"):
        find_parts(tmp_path, Heads())


# Images


def png(path, text=None, size=(8, 8), **record):
    """A PNG with this text, or with a record as symskew writes it."""
    whole = {
        "prompt": "a",
        "seed": 1,
        "model": "ensemble-sdxl",
        "revision": "sha256:0",
        "steps": 2,
        "size": [64, 64],
        "id": "0",
    }
    info = PngImagePlugin.PngInfo()
    info.add_text(RECORD_KEY, json.dumps(whole | record) if text is None else text)
    Image.new("RGB", size).save(path, pnginfo=info)
    return path


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_images_that_would_fill_the_memory_are_refused(tmp_path):
    start = b"\x89PNG\r\n\x1a\n"
    for side in (10_000, 30_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        (tmp_path / "bomb.png").write_bytes(start + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
        with pytest.raises(ValueError, match=r"cannot be read as an image: .*decompression bomb"):
            read_record(tmp_path / "bomb.png")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    text = chunk(b"zTXt", RECORD_KEY.encode() + b"\0\0" + zlib.compress(b"x" * 300_000_000))
    (tmp_path / "text.png").write_bytes(start + header + text + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match="cannot be read as an image: Decompressed data too large"):
        read_record(tmp_path / "text.png")


def test_only_png_is_opened(tmp_path):
    for name in ("x.jpg", "x.tiff"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, format="JPEG" if name == "x.jpg" else "TIFF")
        (tmp_path / name).write_bytes(buffer.getvalue())
        with pytest.raises(ValueError, match="cannot be read as an image"):
            read_record(tmp_path / name)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "[" * 100_000}, "are damaged"),
        ({"text": "[]"}, "are damaged"),
        ({"text": "{}"}, "are incomplete: id, model"),
        ({"seed": "../../x"}, "are damaged: seed is '../../x'"),
        ({"model": ["evil"]}, r"are damaged: model is \['evil'\]"),
        ({"run": {"batch": 10**9}}, "are damaged: it is image 0 of 1000000000"),
        ({"run": {"batch": 2, "place": 2}}, "are damaged: it is image 2 of 2"),
        ({"run": []}, r"are damaged: run is \[\]"),
        ({"versions": 3}, "are damaged: versions is 3"),
    ],
)
def test_settings_inside_an_image_are_checked(record, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_record(png(tmp_path / "x.png", **record))


@pytest.mark.parametrize(
    "change",
    [{"circulation": {"alpha": "__import__('os')"}}, {"negative": 3}, {"arguments": [1]}, {"size": [1]},
     {"baseline": {"name": "evil"}}, {"circulation": {"__class__": 1}}, {"layers": 3}],
)  # fmt: skip
def test_settings_that_are_none_are_refused(change, tmp_path):
    record = {"prompt": "a", "seed": 1, "steps": 2, "size": [64, 64], **change}
    with pytest.raises(ValueError, match=r"\w"):
        request_of(record)


def test_an_image_does_not_choose_what_is_downloaded(tmp_path, no_network, capfd):
    image = png(tmp_path / "x.png", model="nobody/nothing")
    assert run(["generate", "--from", str(image), "--out", str(tmp_path / "out")]) == 2
    said = capfd.readouterr().err.replace("\n", " ")
    assert "nobody/nothing is neither a folder nor on this disk" in said
    assert "ask for it: --model nobody/nothing" in said
    assert not no_network


# Network


def test_generating_a_study_and_its_tables_ask_for_no_connection(model, tmp_path, no_network, capfd):
    written = {**STUDY, "model": str(model), "seeds": {"eval": "0-1"}, "metrics": ["ensemble/all-right"]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(written))
    folder = str(tmp_path / "run")
    for words in (
        ["generate", "a red three", "--model", str(model), "--out", str(tmp_path / "images")],
        ["models"],
        ["study", "run", str(tmp_path / "study.yaml"), "--out", folder, "--workers", "1", "--quiet"],
        ["study", "status", folder],
        ["study", "verify", folder],
    ):
        assert run(words) == 0
    assert not no_network


OFFLINE = """
import os, socket, sys
from symskew.cli.app import run
assert run(["--offline", "--version"]) == 0
assert os.environ["HF_HUB_OFFLINE"] == os.environ["SYMSKEW_OFFLINE"] == "1"
from wandb import Settings
settings = Settings()
settings.update_from_env_vars(os.environ)
assert settings.mode == "offline"
import huggingface_hub
packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for attempt in (
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=5),
    lambda: socket.getaddrinfo("huggingface.co", 443),
    lambda: socket.getaddrinfo(b"huggingface.co", 443),
    lambda: socket.getaddrinfo("127.example.com", 443),
    lambda: socket.getaddrinfo("localhost.example.com", 443),
    lambda: socket.gethostbyname("huggingface.co"),
    lambda: socket.gethostbyname_ex("huggingface.co"),
    lambda: socket.gethostbyaddr("192.0.2.1"),
    lambda: socket.getnameinfo(("192.0.2.1", 80), 0),
    lambda: packets.sendto(b"x", ("192.0.2.1", 53)),
    lambda: packets.sendmsg([b"x"], [], 0, ("192.0.2.1", 53)),
    lambda: packets.connect_ex(("192.0.2.1", 53)),
):
    try:
        attempt()
    except OSError as error:
        assert "symskew: offline, and something tried to connect to" in str(error), error
    else:
        raise SystemExit("connected")
server = socket.create_server(("127.0.0.1", 0))
with socket.create_connection(("localhost", server.getsockname()[1])) as client:
    client.sendmsg([b"x"])
assert socket.gethostbyname("localhost") == "127.0.0.1"
own = os.path.join(sys.argv[1], "socket")
with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
    server.bind(own)
    server.listen()
    client.connect(own)
sys.exit(run(["--offline", "generate", "x", "--model", "nobody/nothing", "--out", sys.argv[1] + "/out"]))
"""


def test_offline_stops_whatever_tries_to_connect_but_for_this_machine(tmp_path):
    found = subprocess.run([sys.executable, "-c", OFFLINE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.returncode == 2, found.stderr
    assert "nobody/nothing is neither a folder nor on this disk" in found.stderr.replace("\n", " ")
    assert "(offline)" in found.stderr.replace("\n", " ")


@dataclass(frozen=True)
class Connects:
    id: str = "connects"
    sample_ids: tuple[str, ...] = ()
    loads: str = "nothing"

    def is_done(self, store):
        return False

    def run(self, worker, *, singly):
        socket.create_connection(("192.0.2.1", 80), timeout=5)


def test_workers_of_an_offline_study_are_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMSKEW_OFFLINE", "1")
    task: Any = Connects()
    with closing(Pool(Outfit(tmp_path, "none", "float32", "cpu", 1, None, {}), 1)) as pool:
        error = pool.submit(task, singly=False).exception()
    assert "symskew: offline, and something tried to connect to 192.0.2.1" in str(error)
