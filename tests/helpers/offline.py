"""What W&B has kept offline of a run, read from its file: records in blocks, as LevelDB's log has them."""

import json
import time

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32768, 7  # bytes; a piece begins with a checksum of four, its length of two and its kind


def records(folder):
    """All records of the last offline run in a run's folder."""
    (path,) = sorted(folder.glob("wandb/offline-run-*/*.wandb"))[-1:]
    content, at, parts = path.read_bytes(), HEADER, b""  # the file has a header of as many bytes
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        parts += content[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (1, 4):  # whole, or the last of several pieces
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def by_key(items):
    """Entries with keys, which may be nested, and JSON."""
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def kept_offline(folder):
    """Rows, config, definitions of metrics and the last summary of the offline run in a run's folder."""
    rows, config, metrics, summary = [], {}, {}, {}
    deadline = time.time() + 30
    while not any(record.WhichOneof("record_type") == "exit" for record in records(folder)):  # it writes on its own
        assert time.time() < deadline
        time.sleep(0.1)
    for record in records(folder):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            rows.append(by_key(record.history.item))
        elif kind == "run":
            config |= by_key(record.run.config.update)
        elif kind == "metric":
            metrics[record.metric.name or record.metric.glob_name] = record.metric
        elif kind == "summary":
            summary |= by_key(record.summary.update)
    return rows, config, metrics, summary
