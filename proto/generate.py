"""Makes the Python code of the contract again, and a descriptor set for buf.

Owns the way from *.proto to generated code; no file ending in _pb2.py, _pb2.pyi or _pb2_grpc.py is ever edited.

    python proto/generate.py            write the code beside the .proto files
    python proto/generate.py --check    exit 1 when the committed code differs from what would be written
    python proto/generate.py --descriptors FILE
                                        write a FileDescriptorSet with source info, for buf lint and buf breaking
"""

import argparse
import filecmp
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


def validate_descriptors() -> bytes:
    """The rules' own descriptor out of the installed protovalidate, so that no schema registry is needed."""
    known = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        known.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
    known.file.add().ParseFromString(validate_pb._DESC.proto.to_binary())
    return known.SerializeToString()


def run_protoc(*arguments: str) -> None:
    """protoc over the whole contract; raises SystemExit with protoc's status when it complains."""
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


def generate(target: Path) -> list[Path]:
    """Write all generated code under `target` and return the files, relative to it."""
    # validate.proto is generated too: protovalidate's own module is made for another protobuf runtime.
    plugins = ("python", "grpc_python", "mypy", "mypy_grpc")
    run_protoc(*(f"--{plugin}_out={'quiet:' if 'mypy' in plugin else ''}{target}" for plugin in plugins), VALIDATE)
    for stub in target.rglob("*_pb2_grpc.py"):
        if "Stub" not in stub.read_text(encoding="utf-8"):
            stub.unlink()
            stub.with_suffix(".pyi").unlink(missing_ok=True)
    return sorted(path.relative_to(target) for path in target.rglob("*_pb2*.py*") if path.suffix in {".py", ".pyi"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--descriptors", type=Path, help="write a descriptor set to this file")
    options = parser.parse_args()
    if options.descriptors:
        run_protoc("--include_imports", "--include_source_info", f"--descriptor_set_out={options.descriptors}")
        return
    if not options.check:
        generate(HERE)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        stale = [
            str(name)
            for name in generate(fresh)
            if not (HERE / name).exists() or not filecmp.cmp(fresh / name, HERE / name, shallow=False)
        ]
    if stale:
        sys.exit("stale generated code, run `make proto`: " + ", ".join(stale))


if __name__ == "__main__":
    main()
