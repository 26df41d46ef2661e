"""Reads the tensors of a torch checkpoint (zip and legacy formats) without torch.

The pickle inside is read with an allow-list of classes, so that a checkpoint cannot run code.
"""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np

DTYPES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

# A storage as the pickle names it: its key in the archive and its class, for example FloatStorage.
Storage = collections.namedtuple("Storage", "key kind")
# A strided view of a storage: offset and strides count elements.
View = collections.namedtuple("View", "storage offset size stride")


def _rebuild_tensor(storage, offset, size, stride, *_):
    return View(storage, offset, tuple(size), tuple(stride))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if name == "_rebuild_tensor_v2":
            return _rebuild_tensor
        if name == "_rebuild_parameter":
            return lambda data, *_: data
        if name == "OrderedDict":
            return collections.OrderedDict
        if name in DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a checkpoint")

    def persistent_load(self, pid):
        # ('storage', class, key, location, element count)
        return Storage(key=pid[2], kind=pid[1])


def _materialize(view, storages):
    data = storages[view.storage.key]
    strides = [step * data.itemsize for step in view.stride]
    return np.lib.stride_tricks.as_strided(data[view.offset :], view.size, strides).copy()


def _load_zip(path):
    with zipfile.ZipFile(path) as archive:
        index = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        base = index[: -len("data.pkl")]
        entries = _Unpickler(io.BytesIO(archive.read(index))).load()
        storages = {}
        for view in entries.values():
            if isinstance(view, View) and view.storage.key not in storages:
                raw = archive.read(f"{base}data/{view.storage.key}")
                storages[view.storage.key] = np.frombuffer(raw, DTYPES[view.storage.kind])
    return entries, storages


def _load_legacy(path):
    with open(path, "rb") as file:
        for _ in ("magic number", "protocol version", "system info"):
            _Unpickler(file).load()
        entries = _Unpickler(file).load()
        keys = _Unpickler(file).load()
        kinds = {v.storage.key: v.storage.kind for v in entries.values() if isinstance(v, View)}
        storages = {}
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            dtype = np.dtype(DTYPES[kinds[key]])
            storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return entries, storages


def load(path):
    """Returns {parameter name: array}."""
    entries, storages = _load_zip(path) if zipfile.is_zipfile(path) else _load_legacy(path)
    return {name: _materialize(view, storages) for name, view in entries.items() if isinstance(view, View)}
