"""Torch's files read without torch: the same numbers, and nothing a pickle asks for is done."""

import collections
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetson_cluster.errors import UserError
from jetson_cluster.ground import torch_file


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def refusal(path):
    with pytest.raises(UserError) as caught:
        torch_file.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=[True, False], ids=["zip", "older form"])
def save(request, torch, tmp_path):
    def save(content):
        path = tmp_path / "state.pth"
        torch.save(content, path, _use_new_zipfile_serialization=request.param)
        return path
    return save


def test_every_type_and_layout_is_read_as_torch_wrote_it(torch, save):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = collections.OrderedDict({
        "float": base, "transposed": base.T, "part": base[1:3, ::2], "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3), "broadcast": torch.ones(1, 3).expand(5, 3),
        "half": base.half(), "double": base.double() / 3, "bfloat16": (base / 3).bfloat16(),
        "parameter": torch.nn.Parameter(base + 1), "bytes": base.to(torch.uint8),
        "long": base.long(), "int": base.int(), "short": base.short(), "char": base.to(torch.int8),
        "bool": base > 3})
    found = torch_file.read(save(state))
    assert list(found) == list(state)
    for name, value in state.items():
        value = value.detach()
        expected = value.float() if name == "bfloat16" else value
        np.testing.assert_array_equal(found[name], expected.numpy())


def test_a_modules_state_dict_is_read(torch, save):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    found = torch_file.read(save(module.state_dict()))
    assert set(found) == set(module.state_dict()) and found["0.weight"].shape == (4, 3, 3, 3)


def test_a_checkpoints_state_dict_is_found_among_other_things(torch, save):
    path = save({"epoch": 3, "optimizer": {"m": torch.ones(9)}, "state_dict": {"w": torch.ones(2)}})
    assert list(torch_file.read(path)) == ["w"]


def test_the_older_form_is_read_without_torch(lite0_weights):
    assert len(lite0_weights.tensors) == 296
    assert lite0_weights.tensors["_conv_stem.weight"].shape == (32, 3, 3, 3)


class Evil:
    """Makes a folder when unpickled, if that is allowed."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def zipped(content):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
    return data.getvalue()


@pytest.mark.parametrize("wrap", [zipped, bytes], ids=["zip", "bare"])
@pytest.mark.parametrize("place", [lambda evil: evil, lambda evil: {"w": evil},
                                   lambda evil: {"state_dict": [evil]}])
def test_a_malicious_pickle_is_refused_before_it_acts(tmp_path, wrap, place):
    target = tmp_path / "made-by-the-pickle"
    path = tmp_path / "evil.pth"
    content = pickle.dumps(place(Evil(target)), protocol=2)
    path.write_bytes(wrap(content))
    assert "refused: its pickle asks for 'posix.mkdir'" in refusal(path)
    assert not target.exists()
    pickle.loads(content)  # the pickle was a live one
    assert target.exists()


@pytest.mark.parametrize("module, name", [
    ("builtins", "eval"), ("os", "system"), ("torch", "load"), ("torch.serialization", "load"),
    ("collections", "defaultdict"), ("jetson_cluster.files", "write_atomically")])
def test_names_outside_the_list_are_refused(tmp_path, module, name):
    path = tmp_path / "evil.pth"
    path.write_bytes(zipped(f"c{module}\n{name}\n.".encode()))
    assert f"'{module}.{name}'" in refusal(path)


@pytest.mark.parametrize("offset, shape, strides", [
    (0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (1, 4)), (-1, (2,), (1,)), (0, (2,), (-1,)),
    (0, (2, 2), (1,)), (0, (10**12, 10**12), (0, 1))])
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(torch, tmp_path, offset, shape,
                                                           strides):
    class Claim:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (
                Stored(), offset, shape, strides, False, collections.OrderedDict())

    class Stored:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(
                value, Stored) else None

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump({"w": Claim()})
    path = tmp_path / "claim.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        archive.writestr("archive/data/0", np.zeros(4, np.float32).tobytes())
    assert "'w'" in refusal(path)


@pytest.mark.parametrize("keep", [0, 1, 3, 100, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(lite0_weights, tmp_path, keep):
    with open(lite0_weights.path, "rb") as stream:
        content = stream.read()
    path = tmp_path / "cut.pth"
    path.write_bytes(content[:keep if isinstance(keep, int) else int(len(content) * keep)])
    refusal(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.99])
def test_a_truncated_zip_is_refused(torch, tmp_path, keep):
    path = tmp_path / "cut.pth"
    torch.save({"w": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * keep)])
    refusal(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), older=st.booleans())
def test_damaged_bytes_do_no_worse_than_be_refused(torch, tmp_path_factory, data, older):
    path = tmp_path_factory.mktemp("damaged") / "w.pth"
    torch.save(collections.OrderedDict(a=torch.ones(3, 2), b=torch.arange(4).half()), path,
               _use_new_zipfile_serialization=not older)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        for array in torch_file.read(path).values():
            assert isinstance(array, np.ndarray)
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("content", [
    b"", b"<html>not found</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02N.",
    pickle.dumps([1, 2]), zipped(b"\x80\x02]."), zipped(b"\x80\x02}."), zipped(b"\x80\x02}"),
    zipped(pickle.dumps({"epoch": 3}, 2)), b"PK\x03\x04 and nothing", os.urandom(500)])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    refusal(path)


def test_a_zip_that_torch_did_not_write_is_told_apart(tmp_path):
    path = tmp_path / "photos.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.txt", "sun")
    assert "no data.pkl" in refusal(path)
