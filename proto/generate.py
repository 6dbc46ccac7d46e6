"""Generate shared/wire/model_pb2.py and .pyi from proto/: `make proto`. The generator is the locked grpcio-tools."""

import argparse
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
SOURCE = "remes/remes/v1/model.proto"
TARGET = PROTO.parent / "shared" / "wire"


def main() -> None:
    """Write the two files into the folder that is named, shared/wire unless told otherwise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="?", type=Path, default=TARGET, help="default: %(default)s")
    target = parser.parse_args().target
    with tempfile.TemporaryDirectory() as folder:
        well_known = files("grpc_tools") / "_proto"
        paths = [f"-I{PROTO}", f"-I{well_known}", f"--python_out={folder}", f"--pyi_out={folder}"]
        if status := protoc.main(["protoc", *paths, SOURCE]):
            sys.exit(status)
        for name in ("model_pb2.py", "model_pb2.pyi"):
            shutil.copyfile(Path(folder, SOURCE).with_name(name), target / name)


if __name__ == "__main__":
    main()
