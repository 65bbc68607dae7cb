"""An integer model in one file: an `.npz` archive of arrays and a JSON header, nothing pickled.

The same model always gives the same bytes: entries stand in a fixed order and carry no clock time.
"""

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import BundleError, HwsearchError
from hwsearch.graph.menu import Menu
from hwsearch.graph.network import Network
from hwsearch.integers.integer_model import IntegerEntry, IntegerModel, OpConstants, StoredWeights

SCHEMA = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
_HEADER = "header.json"

Arrays = dict[str, NDArray[Any]]
Record = dict[str, Any]


def save_model(model: IntegerModel, path: Path) -> None:
    """Write a model; `load_model` gives it back equal."""
    arrays: Arrays = {}
    header = {"schema": SCHEMA, "model": _model_to_record(model, "", arrays)}
    with zipfile.ZipFile(path, "w") as archive:
        _write(archive, _HEADER, json.dumps(header, indent=1).encode())
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            _write(archive, f"{name}.npy", buffer.getvalue())


def _write(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, content)


def load_model(path: Path) -> IntegerModel:
    """Read a model written by `save_model`.

    Raises:
        BundleError: the file is missing, damaged, or of another schema.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read(_HEADER))
            arrays = {name.removesuffix(".npy"): _read(archive, name) for name in archive.namelist() if name != _HEADER}
        if header["schema"] != SCHEMA:
            raise BundleError(f"{path} must have schema {SCHEMA}, but has {header['schema']}; use the version that wrote it.")
        return _model_from_record(header["model"], "", arrays)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError, NotImplementedError) as fault:
        raise BundleError(f"{path} must be a model as save_model writes it, but {_describe(fault)}; export it again.") from fault
    except BundleError:
        raise
    except HwsearchError as fault:
        raise BundleError(f"{path} must hold a valid model, but: {fault} Export it again.") from fault


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
    return array


def _describe(fault: Exception) -> str:
    if isinstance(fault, FileNotFoundError):
        return "there is no such file"
    if isinstance(fault, KeyError):
        return f"it lacks {fault}"
    return f"it is damaged ({fault})"


def _model_to_record(model: IntegerModel, prefix: str, arrays: Arrays) -> Record:
    for name, stored in model.stored.items():
        arrays[f"{prefix}stored/{name}"] = stored.codes
    return {
        "network": model.network.to_json(),
        "menu": model.menu.to_json(),
        "stored_bits": {name: stored.bits for name, stored in model.stored.items()},
        "entries": [_entry_to_record(entry, f"{prefix}entry{index}", arrays) for index, entry in enumerate(model.entries)],
        "input_step": model.input_step,
        "input_zero": model.input_zero,
        "thresholds": list(model.thresholds),
        "gate": _model_to_record(model.gate, f"{prefix}gate/", arrays) if model.gate else None,
    }


def _entry_to_record(entry: IntegerEntry, prefix: str, arrays: Arrays) -> Record:
    for name, constants in entry.constants.items():
        for field in ("bias", "multiplier", "shift"):
            arrays[f"{prefix}/{name}/{field}"] = getattr(constants, field)
    scalars = {
        name: {"input_zero": list(item.input_zero), "output_zero": item.output_zero, "output_max": item.output_max}
        for name, item in entry.constants.items()
    }
    return {"logit_step": entry.logit_step, "constants": scalars}


def _model_from_record(record: Record, prefix: str, arrays: Arrays) -> IntegerModel:
    stored = {
        name: StoredWeights(codes=arrays[f"{prefix}stored/{name}"], bits=bits) for name, bits in record["stored_bits"].items()
    }
    entries = tuple(_entry_from_record(entry, f"{prefix}entry{index}", arrays) for index, entry in enumerate(record["entries"]))
    return IntegerModel(
        network=Network.from_json(record["network"]),
        menu=Menu.from_json(record["menu"]),
        stored=stored,
        entries=entries,
        input_step=record["input_step"],
        input_zero=record["input_zero"],
        thresholds=tuple(record["thresholds"]),
        gate=_model_from_record(record["gate"], f"{prefix}gate/", arrays) if record["gate"] else None,
    )


def _entry_from_record(record: Record, prefix: str, arrays: Arrays) -> IntegerEntry:
    constants = {
        name: OpConstants(
            bias=arrays[f"{prefix}/{name}/bias"],
            multiplier=arrays[f"{prefix}/{name}/multiplier"],
            shift=arrays[f"{prefix}/{name}/shift"],
            input_zero=tuple(item["input_zero"]),
            output_zero=item["output_zero"],
            output_max=item["output_max"],
        )
        for name, item in record["constants"].items()
    }
    return IntegerEntry(constants=constants, logit_step=record["logit_step"])
