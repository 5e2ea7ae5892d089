"""Generates the Python code of the contract, and a descriptor set for buf.

Owns the way from *.proto to generated code; files ending in _pb2.py, _pb2.pyi or _pb2_grpc.py are never edited.

    python proto/generate.py            write the code into market_inference/contract/generated
    python proto/generate.py --check    exit 1 when the committed code differs from the generated code
    python proto/generate.py --descriptors FILE
                                        write a FileDescriptorSet with source info, for buf lint and buf breaking
"""

import argparse
import filecmp
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from google.rpc import status_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

HERE = Path(__file__).resolve().parent
CONTRACT = HERE / "market" / "inference" / "v1"
VALIDATE = "buf/validate/validate.proto"
TARGET = HERE.parent / "market_inference" / "contract" / "generated"
# The generators import by the folders of the .proto files. The generated modules lie in a single package.
_FROM = re.compile(r"^from (?:buf\.validate|market\.inference\.v1) import", re.MULTILINE)
_IMPORT = re.compile(r"^import (?:buf\.validate|market\.inference\.v1)\.(\w+)(?: as (\w+))?$", re.MULTILINE)
_USE = re.compile(r"\b(?:buf\.validate|market\.inference\.v1)\.(?=\w+_pb2\b)")


def validate_descriptors() -> bytes:
    """validate.proto and its imports, from the installed protovalidate: no schema registry is needed."""
    known = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        known.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    known.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    return known.SerializeToString()


def run_protoc(*arguments: str) -> None:
    """Run protoc over the whole contract. Raises SystemExit with protoc's status when protoc fails."""
    google = Path(str(files("grpc_tools") / "_proto"))
    rpc = Path(status_pb2.__file__).parents[2]
    with tempfile.TemporaryDirectory() as folder:
        known = Path(folder) / "validate.binpb"
        known.write_bytes(validate_descriptors())
        sources = sorted(str(path.relative_to(HERE)) for path in CONTRACT.glob("*.proto"))
        status = protoc.main(
            ["protoc", f"-I{HERE}", f"-I{google}", f"-I{rpc}", f"--descriptor_set_in={known}", *arguments, *sources]
        )
    if status:
        sys.exit(status)


def generate(target: Path) -> list[str]:
    """Write all generated code into the folder `target` and return the names of the files."""
    # validate.proto is generated, too: protovalidate's own module needs another protobuf runtime.
    plugins = ("python", "grpc_python", "mypy", "mypy_grpc")
    with tempfile.TemporaryDirectory() as folder:
        run_protoc(*(f"--{plugin}_out={'quiet:' if 'mypy' in plugin else ''}{folder}" for plugin in plugins), VALIDATE)
        written = [path for path in Path(folder).rglob("*_pb2*.py*") if path.suffix in {".py", ".pyi"}]
        without_service = {path.stem for path in written if path.suffix == ".py" and _lacks_service(path)}
        kept = [path for path in written if path.stem not in without_service]
        for path in kept:
            (target / path.name).write_text(_relative(path.read_text(encoding="utf-8")), encoding="utf-8")
    return sorted(path.name for path in kept)


def _lacks_service(path: Path) -> bool:
    return path.stem.endswith("_pb2_grpc") and "Stub" not in path.read_text(encoding="utf-8")


def _relative(source: str) -> str:
    """The source with relative imports of the other generated modules, so that no import root is needed."""
    source = _FROM.sub("from . import", source)
    source = _IMPORT.sub(lambda found: f"from . import {found[1]}" + (f" as {found[2]}" if found[2] else ""), source)
    return _USE.sub("", source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--descriptors", type=Path, help="write a descriptor set to this file")
    options = parser.parse_args()
    if options.descriptors:
        run_protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={options.descriptors}")
        return
    if not options.check:
        generate(TARGET)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        stale = [
            name
            for name in generate(fresh)
            if not (TARGET / name).exists() or not filecmp.cmp(fresh / name, TARGET / name, shallow=False)
        ]
    if stale:
        sys.exit("stale generated code, run `make proto`: " + ", ".join(stale))


if __name__ == "__main__":
    main()
