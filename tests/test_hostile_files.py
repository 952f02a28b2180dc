"""Files from untrusted senders: loading gives a value or an error that names the fault, fast and in little memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dask_dfmr import Aggregate, GaussianMixture, LocalEstimate, Mixture, aggregate
from dask_dfmr.aggregation.archive import DOCUMENT
from dask_dfmr.on_dask.estimate_store import PLAIN, read_block, write_block
from dask_dfmr.untrusted import parse_array
from tests.strategies import jiggled, random_mixture

FEW = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


class Kind:
    """A kind of file: how a good one is made, and how it is read."""

    def __init__(self, write, read, document):
        self.write, self.read, self.document = write, read, document

    def good(self, folder):
        path = folder / "good"
        self.write(path)
        return path


def write_aggregate(path):
    truth = random_mixture(0, 2)
    mixtures = [jiggled(truth, i, 0.01) for i in range(6)]
    estimates = [LocalEstimate(m, 100 + i) for i, m in enumerate(mixtures)]
    aggregate(estimates, rho=float("inf"), random_state=0).save(path)


def write_model(path):
    """With parameters of all kinds, and with the law of its rows."""
    truth = random_mixture(0, 2)
    parts = [truth.sample(300, random_state=i)[0] for i in range(4)]
    gm = GaussianMixture(2, init_params=truth, check_optimum=None, random_state=0).fit(parts)
    gm.set_params(trusted_workers={"T": 1}, source=("a", 1)).save(path)


def write_estimates(path):
    write_block([LocalEstimate(random_mixture(i), 50).to_arrays() for i in range(3)], str(path))


def read_estimates(path):
    return [LocalEstimate.from_arrays(message) for message in read_block(str(path))]


KINDS = {
    "mixture": Kind(random_mixture(0, 2).save, Mixture.load, None),
    "estimate": Kind(LocalEstimate(random_mixture(0, 2), 9).save, LocalEstimate.load, None),
    "aggregate": Kind(write_aggregate, Aggregate.load, DOCUMENT),
    "model": Kind(write_model, GaussianMixture.load, DOCUMENT),
    "estimates": Kind(write_estimates, read_estimates, PLAIN),
}
ZIPS = ["aggregate", "model", "estimates"]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a good file of each kind."""
    return {
        name: kind.good(tmp_path_factory.mktemp(name)).read_bytes() for name, kind in KINDS.items()
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "file"


def read(name, path, content):
    path.write_bytes(content)
    return KINDS[name].read(path)


def refused(name, path, content, match=None):
    with pytest.raises(ValueError, match=match) as caught:
        read(name, path, content)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(members, **kwargs):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **kwargs) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(header, body=b""):
    """A file in npy's format 1.0 with any header."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def header(shape, descr="<f8", fortran=False):
    return f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.smoke
def test_good_files_are_read(name, good, place):
    """What the other tests change is fine before."""
    assert read(name, place, good[name])


# -- any damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
class TestDamage:
    @FEW
    @given(data=st.data())
    def test_truncated(self, name, good, place, data):
        size = data.draw(st.integers(0, len(good[name]) - 1))
        refused(name, place, good[name][:size])

    @FEW
    @given(data=st.data())
    def test_flipped_bits(self, name, good, place, data):
        content = bytearray(good[name])
        for _ in range(data.draw(st.integers(1, 5))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        accepted_or_refused(name, place, bytes(content))

    @FEW
    @given(data=st.data())
    def test_spliced(self, name, good, place, data):
        content = good[name]
        a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        c = data.draw(st.integers(0, len(content)))
        accepted_or_refused(name, place, content[:c] + content[a:b] + content[c:])

    @FEW
    @given(content=st.binary(max_size=300))
    def test_noise(self, name, place, content):
        refused(name, place, content)

    def test_empty(self, name, place):
        refused(name, place, b"")

    def test_a_pickle(self, name, place):
        refused(name, place, pickle.dumps(Trap()))
        assert not Trap.sprung


def accepted_or_refused(name, path, content):
    """A file may be as good as before; else a ValueError says what is wrong."""
    try:
        read(name, path, content)
    except ValueError as error:
        told = str(error)
    else:
        return
    assert str(path) in told or name == "estimates"
    assert len(told) < 2000


class Trap:
    """Says so if it is made from a pickle."""

    sprung = False

    def __reduce__(self):
        return spring, ()


def spring():
    Trap.sprung = True


@pytest.mark.parametrize("name", KINDS)
class TestNoFile:
    def test_missing(self, name, tmp_path):
        with pytest.raises(FileNotFoundError):
            KINDS[name].read(tmp_path / "none")

    def test_a_folder(self, name, tmp_path):
        with pytest.raises(ValueError, match="no regular file"):
            KINDS[name].read(tmp_path)

    def test_a_pipe_without_a_writer(self, name, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(ValueError, match="no regular file"):
            KINDS[name].read(tmp_path / "pipe")

    def test_a_device_that_never_ends(self, name):
        with pytest.raises(ValueError, match="no regular file"):
            KINDS[name].read("/dev/zero")


# -- JSON ---------------------------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, 2**63, 1e308, "full", "nan", {"number": "nan"}, [], {}])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def places_in(value, path=()):
    """Ways to everything inside of a document."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        found += places_in(item, (*path, key))
    return found


def document_of(name, content):
    kind = KINDS[name]
    return json.loads(content if kind.document is None else members_of(content)[kind.document])


def with_document(name, content, text):
    kind = KINDS[name]
    if kind.document is None:
        return text.encode()
    return zipped(members_of(content) | {kind.document: text})


@pytest.mark.parametrize("name", KINDS)
class TestDocuments:
    @settings(FEW, max_examples=200)
    @given(data=st.data())
    def test_any_value_in_any_place(self, name, good, place, data):
        document = document_of(name, good[name])
        for _ in range(data.draw(st.integers(1, 2))):
            *way, last = data.draw(st.sampled_from(places_in(document)))
            inner = document
            for key in way:
                inner = inner[key]
            if data.draw(st.booleans()) and isinstance(inner, dict):
                del inner[last]
            else:
                inner[last] = data.draw(VALUES)
            if not places_in(document):
                break
        accepted_or_refused(name, place, with_document(name, good[name], json.dumps(document)))

    @pytest.mark.parametrize(
        "text",
        ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, "NaN", "nul", "[1,]", '"\ud800', "\x00"],
    )
    def test_what_is_no_document(self, name, good, place, text):
        content = text.encode("utf-8", "surrogatepass").decode("latin-1")
        refused(name, place, with_document(name, good[name], content))

    def test_a_name_that_is_there_twice(self, name, good, place):
        text = json.dumps(document_of(name, good[name]))
        if name == "estimates":
            text = text.replace('"reason":', '"reason": "x", "reason":')
        else:
            text = '{"version": 1, ' + text[1:]
        refused(name, place, with_document(name, good[name], text), "occurs twice")

    @pytest.mark.parametrize("version", [2, "1", None, True, 1e999, [1]])
    def test_another_version(self, name, good, place, version):
        if name == "estimates":
            pytest.skip("temporary files have none")
        document = document_of(name, good[name]) | {"version": version}
        refused(name, place, with_document(name, good[name], json.dumps(document)))

    def test_bytes_that_are_no_text(self, name, good, place):
        kind = KINDS[name]
        bad = b'{"format": "\xff\xfe\xff"}'
        content = (
            bad if kind.document is None else zipped(members_of(good[name]) | {kind.document: bad})
        )
        refused(name, place, content)


class TestMixtures:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("weights", [float("nan"), 1.0]),
            ("weights", ["0.5", "0.5"]),
            ("weights", 10**400),
            ("weights", [[0.5], [0.5, 1]]),
            ("means", "x" * 10_000),
            ("covariances", [[[1e400]]]),
            ("covariance_type", ["full"]),
            ("covariance_type", {}),
            ("feature_names", 5),
            ("feature_names", [["a"], "b"]),
            ("feature_names", "ab"),
            ("extra", 1),
        ],
    )
    def test_wrong_values(self, good, place, field, value):
        document = json.loads(good["mixture"]) | {field: value}
        refused("mixture", place, json.dumps(document).encode())


# -- zip files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZIPS)
class TestArchives:
    @pytest.mark.parametrize(
        "member",
        [
            *("../../evil.npy", "/etc/evil.npy", "C:\\evil.npy", "mixture/../../x.npy"),
            *("evil.py", "aggregate.pkl", "a/b/c.npy", "mixture/", "x" * 60_000),
        ],
    )
    def test_members_that_do_not_belong_here(self, name, good, place, member):
        members = members_of(good[name]) | {member: npy(header((0,)))}
        refused(name, place, zipped(members), "is no valid name of a member")
        assert [path.name for path in place.parent.iterdir()] == ["file"]

    def test_a_member_that_is_there_twice(self, name, good, place):
        members = list(members_of(good[name]).items())
        with pytest.warns(UserWarning, match="Duplicate name"):
            content = zipped([*members, members[-1]])
        refused(name, place, content, "occurs twice")

    def test_a_bomb(self, name, good, place):
        """A gigabyte in a megabyte."""
        members = members_of(good[name]) | {"bomb/bomb.npy": bytes(2**26)}
        content = zipped(members, compression=zipfile.ZIP_DEFLATED)
        assert len(content) < 2**20
        refused(name, place, content, "without compression")

    def test_members_that_lie_over_one_another(self, name, good, place):
        """Every entry of the directory points to the same bytes."""
        members = {f"a{i}/b.npy": b"" for i in range(50)} | {"big/big.npy": bytes(10_000)}
        content = bytearray(zipped(members_of(good[name]) | members))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            big, start = infos["big/big.npy"], archive.start_dir
        at = start
        while content[at : at + 4] == b"PK\x01\x02":
            n_name, n_extra, n_comment = struct.unpack("<3H", content[at + 28 : at + 34])
            if content[at + 46 : at + 47] == b"a" and content[at + 47 : at + 48].isdigit():
                content[at + 16 : at + 28] = struct.pack("<3L", big.CRC, 10_000, 10_000)
                content[at + 42 : at + 46] = struct.pack("<L", big.header_offset)
            at += 46 + n_name + n_extra + n_comment
        refused(name, place, bytes(content), "longer than the file")

    def test_an_encrypted_member(self, name, good, place):
        content = bytearray(good[name])
        at = content.index(b"PK\x01\x02")
        content[at + 8] |= 1
        refused(name, place, bytes(content))

    @pytest.mark.parametrize("method", [1, 8, 12, 14, 99])
    def test_a_compressed_member(self, name, good, place, method):
        content = bytearray(good[name])
        at = content.index(b"PK\x01\x02")
        content[at + 10] = method
        refused(name, place, bytes(content))

    def test_no_document(self, name, good, place):
        members = members_of(good[name])
        del members[KINDS[name].document]
        refused(name, place, zipped(members), "has no member")

    def test_no_arrays(self, name, good, place):
        kind = KINDS[name]
        content = zipped({kind.document: members_of(good[name])[kind.document]})
        if name == "estimates":
            path = place
            path.write_bytes(content)
            with pytest.raises(ValueError, match="missing"):
                kind.read(path)
        else:
            refused(name, place, content, "lacks something")


HEADERS = [
    (header((10**12,)), "must hold"),
    (header((10**12, 10**12, 10**12)), "must hold"),
    (header((2**63, 2)), "must hold"),
    (header((-1, -2)), "must hold"),
    (header((0, 10**30)), None),
    (header((2,), "|O"), "got '|O'"),
    (header((2,), "<f4"), "got '<f4'"),
    (header((2,), "<U9"), "got '<U9'"),
    (header((2,), fortran=True), "C order"),
    (header("(2,)") + "x", None),
    ("{'descr': '<f8'}", None),
    (header("'a'"), None),
    ("[" * 50 + "]" * 50, None),
    ("__import__('os').system('false')", None),
    ("1" * 100, None),
    ("", None),
]


class TestArrays:
    @pytest.mark.parametrize(("text", "message"), HEADERS)
    @pytest.mark.parametrize("name", ZIPS)
    def test_headers(self, name, good, place, text, message):
        content = members_of(good[name])
        which = next(member for member in content if member.endswith("weights.npy"))
        content[which] = npy(text, bytes(16))
        with pytest.raises(ValueError):  # noqa: PT011  (the messages are NumPy's, the type is ours)
            parse_array("a", content[which])
        refused(name, place, zipped(content), message and re.escape(message))

    @FEW
    @given(content=st.binary(max_size=200))
    def test_noise_behind_the_magic(self, content):
        with pytest.raises(ValueError):  # noqa: PT011
            parse_array("a", b"\x93NUMPY\x01\x00" + content)

    @FEW
    @given(
        array=st.sampled_from([np.arange(6.0).reshape(2, 3), np.array(True), np.zeros((0, 3), int)])
    )
    def test_good_ones_are_read(self, array):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        found = parse_array("a", buffer.getvalue())
        np.testing.assert_array_equal(found, array)

    def test_objects_are_not_unpickled(self, good, place):
        buffer = io.BytesIO()
        np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
        content = members_of(good["aggregate"]) | {"mixture/weights.npy": buffer.getvalue()}
        refused("aggregate", place, zipped(content), r"got '\|O'")
        assert not Trap.sprung


# -- time and memory -----------------------------------------------------------------------------------

HUNGRY = """
import resource, sys
from dask_dfmr import Aggregate, Mixture
def most():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = most()
for path in sys.argv[1:]:
    try:
        (Mixture if "json" in path else Aggregate).load(path)
    except ValueError as error:
        print(most() - before)
"""


def test_data_that_are_not_there_take_no_memory(good, tmp_path):
    """A bomb, a megabyte of names, a shape of terabytes, and nesting: in a process whose memory is measured."""
    members = members_of(good["aggregate"])
    means = npy(header((2**40, 2)), bytes(32))
    contents = {
        "bomb": zipped(members | {"bomb/bomb.npy": bytes(2**29)}, compression=zipfile.ZIP_DEFLATED),
        "many": zipped({f"a{i}/b.npy": b"" for i in range(10_000)}),
        "huge": zipped(members | {"mixture/means.npy": means}),
        "deep.json": b"[" * 2**20,
        "deep": zipped({DOCUMENT: b"[" * 2**20}),
    }
    for name, content in contents.items():
        assert len(content) < 2**21
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY, *(str(tmp_path / name) for name in contents)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    kilobytes = [int(line) for line in done.stdout.split()]
    assert len(kilobytes) == len(contents)
    assert max(kilobytes) < 2**16
