"""Files of NAS-Bench-101: small ones in the official format, written by other people's writers of its two layers.

``tensorboardX`` writes the TFRecord frames, and ``google.protobuf`` the messages from the published definition.
"""

import base64
import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasplat.config import Execution, StudyConfig
from nasplat.errors import InvalidArchitectureError, InvalidInputError
from nasplat.fidelity import Fidelity
from nasplat.measurement import Role
from nasplat.search_spaces.conv_kernels import ConvKernels
from nasplat.search_spaces.nasbench101 import CONV1, CONV3, POOL, NasBench101
from nasplat.tables.nasbench101 import nasbench101
from nasplat.tables.protobuf import double, fields
from nasplat.tables.tfrecord import checksums, read_records
from nasplat.trial import Proposal
from nasplat.worker import BenchConfig, set_up

SPACE = NasBench101()
STORED_INCEPTION = "0111100000000100000010000001000001000000010000000"
CELLS = (
    (STORED_INCEPTION, (CONV3, CONV1, POOL, CONV3, CONV3)),
    ("0100", ()),
    ("010001000", (POOL,)),
)
"""Matrix and inner operations as the file has them, pruned."""
BUDGETS = (4, 108)


def _message_class(descriptors: Any, name: str) -> Any:
    factory = importlib.import_module("google.protobuf.message_factory")
    return factory.GetMessageClass(descriptors.FindMessageTypeByName(name))


def _model_metrics() -> Any:
    """The class of the published ``model_metrics.proto``."""
    descriptor_pb2 = importlib.import_module("google.protobuf.descriptor_pb2")
    pool = importlib.import_module("google.protobuf.descriptor_pool").DescriptorPool()
    double_, int32, string, message, optional, repeated = 1, 5, 9, 11, 1, 3
    file = descriptor_pb2.FileDescriptorProto(name="model_metrics.proto", package="nasbench", syntax="proto2")
    metrics = file.message_type.add(name="ModelMetrics")
    metrics.field.add(
        name="evaluation_data", number=1, type=message, label=repeated, type_name=".nasbench.EvaluationData"
    )
    metrics.field.add(name="trainable_parameters", number=2, type=int32, label=optional)
    metrics.field.add(name="total_time", number=3, type=double_, label=optional)
    evaluation = file.message_type.add(name="EvaluationData")
    names = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    for number, name in enumerate(names, start=1):
        evaluation.field.add(name=name, number=number, type=double_, label=optional)
    evaluation.field.add(name="checkpoint_path", number=6, type=string, label=optional)
    pool.Add(file)
    return _message_class(pool, "nasbench.ModelMetrics")


MODEL_METRICS = _model_metrics()


def accuracy(cell: int, epochs: int, repeat: int) -> float:
    """A made-up validation accuracy that tells every training apart; on test data it is .01 lower."""
    return 0.5 + cell / 10 + epochs / 1_000 + repeat / 10_000


def metrics(cell: int, epochs: int, repeat: int) -> Any:
    message = MODEL_METRICS(trainable_parameters=2_694_282 + cell, total_time=1e4)
    for part in (0.0, 0.5, 1.0):
        valid = accuracy(cell, epochs, repeat) * part
        message.evaluation_data.add(
            current_epoch=epochs * part,
            training_time=10.5 * epochs * part + repeat,
            train_accuracy=1.0,
            validation_accuracy=valid,
            test_accuracy=valid - 0.01,
            checkpoint_path="/model.ckpt-1",
        )
    return message


def record(cell: int, epochs: int, repeat: int, message: Any = None) -> bytes:
    matrix, inner = CELLS[cell]
    operations = ",".join(("input", *inner, "output"))
    values = SPACE.parse_values(f"{matrix}:{operations}")
    serialized = (message or metrics(cell, epochs, repeat)).SerializeToString()
    raw = base64.b64encode(serialized).decode()
    return json.dumps([SPACE.canonical(values), epochs, matrix, operations, raw]).encode()


def write(path: Path, records: Iterable[bytes]) -> Path:
    writer = importlib.import_module("tensorboardX.record_writer").RecordWriter(str(path))
    for content in records:
        writer.write(content)
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trainings of each cell at each budget, the last cell with one only after 108 epochs."""
    trainings = [(c, e, r) for c in range(3) for e in BUDGETS for r in range(3) if (c, e) != (2, 108) or r == 0]
    return write(tmp_path_factory.mktemp("table") / "nasbench_full.tfrecord", (record(*t) for t in trainings))


def proposal(text: str, epochs: int, seed: int = 0) -> Proposal:
    return Proposal(SPACE.parse(text), Fidelity(epochs), seed)


def test_a_training_has_both_accuracies_and_its_time(file: Path) -> None:
    measurement = nasbench101(SPACE, f"{file}#cifar10@1").measure(proposal("inception", 108))
    assert measurement["val_accuracy"] == accuracy(0, 108, 1)
    assert measurement["test_accuracy"] == accuracy(0, 108, 1) - 0.01
    assert measurement.metrics["val_accuracy"].role is Role.SEARCH
    assert measurement.metrics["test_accuracy"].role is Role.TEST
    assert measurement.cost.seconds == 10.5 * 108 + 1


def test_every_form_of_a_cell_finds_its_row(file: Path) -> None:
    evaluator = nasbench101(SPACE, f"{file}#cifar10@0")
    stored = f"{STORED_INCEPTION}:{','.join(('input', *CELLS[0][1], 'output'))}"
    assert SPACE.parse(stored) != SPACE.parse("inception")
    assert evaluator.measure(proposal(stored, 4)) == evaluator.measure(proposal("inception", 4))
    # The same with a vertex that leads nowhere.
    pooled = evaluator.measure(proposal("0110" + "0001" + "0000" + "0000:input,maxpool3x3,conv1x1-bn-relu,output", 4))
    assert pooled["val_accuracy"] == accuracy(2, 4, 0)


def test_the_mean_and_named_trainings(file: Path) -> None:
    mean = nasbench101(SPACE, f"{file}#cifar10@mean")
    expected = sum(accuracy(1, 4, r) for r in range(3)) / 3
    assert mean.measure(proposal("0100:input,output", 4))["val_accuracy"] == pytest.approx(expected, abs=1e-12)
    assert mean.measure(proposal("010001000:input,maxpool3x3,output", 108))["val_accuracy"] == accuracy(2, 108, 0)
    named = nasbench101(SPACE, f"{file}#cifar10@2,0")
    values = [named.measure(proposal("inception", 4, seed))["val_accuracy"] for seed in (0, 1)]
    assert values == [accuracy(0, 4, 2), accuracy(0, 4, 0)]
    with pytest.raises(InvalidInputError, match=r"say cifar10@mean, or name one or more of the seeds 0, 1, 2"):
        nasbench101(SPACE, f"{file}#cifar10").metrics(Fidelity(4))


def test_what_the_file_lacks_is_no_number(file: Path) -> None:
    evaluator = nasbench101(SPACE, f"{file}#cifar10@2")
    for text in ("010001000:input,maxpool3x3,output", "resnet", "#0"):
        with pytest.raises(InvalidArchitectureError, match=r"has no test_accuracy and val_accuracy of .* seed 2"):
            evaluator.measure(proposal(text, 108))
    with pytest.raises(InvalidInputError, match="trained for 4, 108 epochs: choose one of them, got 12"):
        evaluator.context(Fidelity(12))


def test_architectures_are_those_of_the_space(file: Path) -> None:
    table = nasbench101(SPACE, f"{file}#cifar10@mean").table
    assert [SPACE.parse(text).text for text in table.architectures] == list(table.architectures)
    found = {SPACE.canonical(SPACE.parse_values(text)) for text in table.architectures}
    assert found >= {"28cfc7874f6d200472e1a9dcd8650aa0"}
    assert len(found) == 3


def test_is_found_by_its_name(file: Path) -> None:
    study = StudyConfig(
        "nasplat.search_spaces.nasbench101:NasBench101",
        proxy="params",
        epochs=108,
        benchmark=f"nasbench101:{file}#cifar10@0",
    )
    bench = set_up(BenchConfig(json.dumps(study.to_json()), Execution()))
    assert bench.task.input_shape == (3, 32, 32)
    assert bench.evaluator.measure(proposal("inception", 108))["val_accuracy"] == accuracy(0, 108, 0)


def test_the_content_is_the_identity(file: Path, tmp_path: Path) -> None:
    same = write(tmp_path / "same.tfrecord", list(read_records(file)))
    other = write(tmp_path / "other.tfrecord", list(read_records(file))[:-1])
    contexts = [nasbench101(SPACE, f"{path}#cifar10@0").context(Fidelity(4)) for path in (file, same, other)]
    assert contexts[0] == contexts[1] != contexts[2]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (3, "the record at byte 0 is damaged in its length, or this is no TFRecord file"),
        (9, "the record at byte 0 is damaged in its length, or this is no TFRecord file"),
        (40, "the record at byte 0 is damaged in its data: get the file again"),
        (-1, "is damaged in its data: get the file again"),
    ],
)
def test_a_damaged_file_is_refused(file: Path, tmp_path: Path, place: int, message: str) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    (tmp_path / "damaged.tfrecord").write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        nasbench101(SPACE, f"{tmp_path / 'damaged.tfrecord'}#cifar10@0")


@pytest.mark.parametrize("missing", [1, 4, 5, 40])
def test_a_file_that_is_cut_off_is_refused(file: Path, tmp_path: Path, missing: int) -> None:
    (tmp_path / "short.tfrecord").write_bytes(file.read_bytes()[:-missing])
    with pytest.raises(InvalidInputError, match=r"short\.tfrecord: the record at byte \d+ is cut off: get the whole"):
        nasbench101(SPACE, f"{tmp_path / 'short.tfrecord'}#cifar10@0")


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    half = MODEL_METRICS()
    half.evaluation_data.add(current_epoch=0.0)
    blind = metrics(0, 4, 0)
    blind.evaluation_data[2].ClearField("test_accuracy")
    raw = json.loads(record(0, 4, 0))
    for name, records, message in (
        ("no.tfrecord", [b'{"a": 1}'], "record 0, is none of NAS-Bench-101: expected a list of hash, epochs, matrix"),
        ("text.tfrecord", [b"accuracy 94"], "record 0, is none of NAS-Bench-101: Expecting value"),
        ("half.tfrecord", [record(0, 4, 0), record(0, 4, 1, half)], "record 1, .* at start, half and end, got 1"),
        ("blind.tfrecord", [record(0, 4, 0, blind)], "its last evaluation lacks field 5 of EvaluationData"),
        ("base.tfrecord", [json.dumps([*raw[:4], "A"]).encode()], "its metrics are no base64"),
        ("cut.tfrecord", [json.dumps([*raw[:4], "CgU="]).encode()], "field 1 is cut off at byte 2"),
        ("hash.tfrecord", [json.dumps(["0" * 32, *raw[1:]]).encode()], f"has the hash {'0' * 32} for 0111"),
        ("empty.tfrecord", [], "is empty"),
    ):
        path = write(tmp_path / name, records)
        with pytest.raises(InvalidInputError, match=message):
            nasbench101(SPACE, f"{path}#cifar10@0")
    with pytest.raises(InvalidInputError, match=r"there is no file .*none\.tfrecord; expected one such as nasbench_o"):
        nasbench101(SPACE, f"{tmp_path / 'none.tfrecord'}#cifar10@0")


def test_a_table_of_another_space_is_refused(file: Path) -> None:
    with pytest.raises(InvalidInputError, match="is of another search space than conv-kernels"):
        nasbench101(ConvKernels(), f"{file}#cifar10@0")


def test_checksums_are_castagnolis() -> None:
    masked = importlib.import_module("tensorboardX.record_writer").masked_crc32c
    rng = np.random.default_rng(0)
    texts = [b"123456789", b"", b"\0" * 32, *(rng.bytes(n) for n in (1, 700, 3, 8, 700))]
    assert checksums(texts).tolist() == [masked(text) for text in texts]
    # RFC 3720, B.4: the checksum of 32 zero bytes, before it is masked.
    plain = 0x8A9136AA
    rotated = plain >> 15 | plain << 17 & 0xFFFFFFFF
    assert checksums([b"\0" * 32]).tolist() == [(rotated + 0xA282EAD8) % 2**32]
    assert checksums([]).size == 0


def test_records_of_more_than_one_chunk(tmp_path: Path) -> None:
    texts = [str(i).encode() * (i % 7) for i in range(9_000)]
    assert list(read_records(write(tmp_path / "long.tfrecord", texts))) == texts


def test_wire_types() -> None:
    # Fields 1 (varint 300), 2 (fixed32), 3 (fixed64, the double 1.5) and 4 (bytes), as the format's page spells them.
    message = bytes.fromhex("08ac02 1501020304 19000000000000f83f 2203616263".replace(" ", ""))
    one, two, three, four = fields(message)
    assert (one, two, four) == ((1, 300), (2, b"\1\2\3\4"), (4, b"abc"))
    assert double(three[1]) == 1.5
    for wrong, error in ((b"\x08", "a number is cut off"), (b"\x0b", "wire type 3"), (b"\x08" + b"\xff" * 11, "cut")):
        with pytest.raises(InvalidInputError, match=error):
            list(fields(wrong))
    with pytest.raises(InvalidInputError, match="expected 8 bytes of a double, got 300"):
        double(300)
