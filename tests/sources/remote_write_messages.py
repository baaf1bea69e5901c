"""The messages of Prometheus remote write, encoded by the protobuf library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "prometheus": {
        "WriteRequest": (("timeseries", 1, "TimeSeries", True), ("metadata", 3, "Family", True)),
        "Family": (("type", 1, "int32", False), ("metric_family_name", 2, "string", False)),
        "TimeSeries": (
            ("labels", 1, "Label", True),
            ("samples", 2, "Sample", True),
            ("exemplars", 3, "Exemplar", True),
            ("histograms", 4, "Histogram", True),
        ),
        "Label": (("name", 1, "string", False), ("value", 2, "string", False)),
        "Sample": (("value", 1, "double", False), ("timestamp", 2, "int64", False)),
        "Exemplar": (
            ("labels", 1, "Label", True),
            ("value", 2, "double", False),
            ("timestamp", 3, "int64", False),
        ),
        "Histogram": (("sum", 3, "double", False), ("timestamp", 15, "int64", False)),
    },
    "io.prometheus.write.v2": {
        "Request": (("symbols", 4, "string", True), ("timeseries", 5, "TimeSeries", True)),
        "TimeSeries": (
            ("labels_refs", 1, "uint32", True),
            ("samples", 2, "Sample", True),
            ("histograms", 3, "Histogram", True),
            ("exemplars", 4, "Exemplar", True),
            ("metadata", 5, "Metadata", False),
            ("created_timestamp", 6, "int64", False),
        ),
        "Exemplar": (
            ("labels_refs", 1, "uint32", True),
            ("value", 2, "double", False),
            ("timestamp", 3, "int64", False),
        ),
        "Sample": (("value", 1, "double", False), ("timestamp", 2, "int64", False)),
        "Histogram": (("sum", 3, "double", False), ("timestamp", 15, "int64", False)),
        "Metadata": (
            ("type", 1, "int32", False),
            ("help_ref", 3, "uint32", False),
            ("unit_ref", 4, "uint32", False),
        ),
    },
}


def message_class(package: str, name: str) -> Any:
    """Return the class of a message."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{package}.{name}"))


def build_pool() -> descriptor_pool.DescriptorPool:
    """Return the descriptors of all messages."""
    pool = descriptor_pool.DescriptorPool()
    for package, messages in MESSAGES.items():
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{package}.proto", package=package, syntax="proto3"
        )
        for name, parts in messages.items():
            message = file.message_type.add(name=name)
            for field, number, kind, repeated in parts:
                label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
                added = message.field.add(name=field, number=number, label=label)
                if kind in messages:
                    added.type = FIELD.TYPE_MESSAGE
                    added.type_name = f".{package}.{kind}"
                else:
                    added.type = FIELD.Type.Value(f"TYPE_{kind.upper()}")
        pool.Add(file)
    return pool


POOL = build_pool()
WriteRequest = message_class("prometheus", "WriteRequest")
Request = message_class("io.prometheus.write.v2", "Request")
Series = tuple[Mapping[str, str], Sequence[tuple[int, float]]]  # labels, (ms, value) of samples


def encode_v1(series: Sequence[Series]) -> bytes:
    """Return a message of version 1.0."""
    message = WriteRequest()
    for labels, samples in series:
        added = message.timeseries.add()
        for name, value in sorted(labels.items()):
            added.labels.add(name=name, value=value)
        for time, value in samples:
            added.samples.add(timestamp=time, value=value)
    return message.SerializeToString()


def encode_v2(series: Sequence[Series], kind: int = 0) -> bytes:
    """Return a message of version 2.0; `kind` is the type of all metrics, 0 = not said."""
    message = Request()
    symbols = {"": 0}
    for labels, samples in series:
        added = message.timeseries.add()
        for text in (text for pair in sorted(labels.items()) for text in pair):
            added.labels_refs.append(symbols.setdefault(text, len(symbols)))
        for time, value in samples:
            added.samples.add(timestamp=time, value=value)
        if kind:
            added.metadata.type = kind
            added.metadata.help_ref = symbols.setdefault("Some help.", len(symbols))
    message.symbols.extend(symbols)
    return message.SerializeToString()
