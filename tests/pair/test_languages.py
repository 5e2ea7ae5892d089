"""The Go and Java clients of docs/languages.md, made and run as the document says, where the toolchains are at hand.

Owns the Debian packages' places: Java libraries in /usr/share/java, Go libraries in /usr/share/gocode.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from market_inference.contract.generated import inference_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "tests" / "clients"
DOCUMENT = (ROOT / "docs" / "languages.md").read_text(encoding="utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^    .*\n)+", DOCUMENT, re.MULTILINE)]
JARS = [
    Path(f"/usr/share/java/{name}.jar")
    for name in (
        "grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite", "grpc-stub",
        "protobuf", "netty-buffer", "netty-codec", "netty-codec-http", "netty-codec-http2", "netty-codec-socks",
        "netty-common", "netty-handler", "netty-handler-proxy", "netty-resolver", "netty-transport",
        "netty-transport-native-unix-common", "guava", "perfmark-api", "opencensus-api", "jsr305",
        "geronimo-annotation-1.3-spec",
    )
]  # fmt: skip
GO_LIBRARIES = Path("/usr/share/gocode")
GO_MODULE = "market-inference.example.com/go"
CLOSES = [round(100 + value, 6) for value in np.sin(np.arange(60.0)).tolist()]


def need(*programs: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"not on PATH: {', '.join(missing)}; docs/languages.md names the packages")


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def generate(folder: Path, option: str) -> None:
    """Run the document's protoc command that has this option."""
    run(sys.executable, ROOT / "proto" / "generate.py", "--descriptors", folder / "contract.binpb", folder=folder)
    [command] = [block for block in BLOCKS if block.startswith("protoc ") and option in block]
    run("sh", "-c", command, folder=folder)


def expected(running) -> list[float]:
    request = pb.PredictRequest(series=[pb.Series(values=CLOSES)], horizon=10)
    return list(running.stub.Predict(request, metadata=running.metadata, timeout=60).forecasts[0].forecast.quantiles)


@pytest.mark.parametrize("example", ["go/main.go", "java/Forecast.java"])
def test_the_document_shows_the_lines_of_the_example(example):
    text = (CLIENTS / example).read_text(encoding="utf-8")
    shown = text.partition("shows the lines from here\n")[2].rpartition("// to here")[0].rstrip()
    assert textwrap.dedent(shown).expandtabs(4) in DOCUMENT.replace("\n    ", "\n")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_java_example_calls_a_pair(running, tmp_path):
    need("java", "javac", "protoc", "grpc_java_plugin")
    if missing := [jar.name for jar in JARS if not jar.exists()]:
        pytest.skip(f"not in {JARS[0].parent}: {', '.join(missing)}; docs/languages.md names the packages")
    generate(tmp_path, "--grpc-java_out")
    shutil.copy(CLIENTS / "java" / "Forecast.java", tmp_path)
    libraries = os.pathsep.join(map(str, JARS))
    sources = sorted(map(str, tmp_path.rglob("*.java")))
    run("javac", "-J-Xmx600m", "-nowarn", "-cp", libraries, "-d", "classes", *sources, folder=tmp_path)
    host, _, port = running.target.rpartition(":")
    said = run(
        "java", "-cp", f"classes{os.pathsep}{libraries}", "Forecast", host, port, *map(str, CLOSES), folder=tmp_path,
        KEY=running.key,
    )  # fmt: skip
    assert json.loads(said) == expected(running)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_go_example_calls_a_pair(running, tmp_path):
    need("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc")
    library = GO_LIBRARIES / "src" / "google.golang.org" / "grpc"
    if not library.is_dir():
        pytest.skip(f"no {library}; docs/languages.md names the packages")
    module = tmp_path / "src" / GO_MODULE
    module.mkdir(parents=True)
    generate(module, "--go_out")
    shutil.copytree(CLIENTS / "go", module / "forecast")
    old = not (library / "credentials" / "insecure").is_dir()
    run(
        "go", "build", "-p", "2", *(["-tags", "grpc133"] if old else []), "-o", tmp_path / "example", "./forecast",
        folder=module, GO111MODULE="off", GOPATH=f"{tmp_path}:{GO_LIBRARIES}", GOCACHE=str(tmp_path / "cache"),
    )  # fmt: skip
    said = run(tmp_path / "example", running.target, *map(str, CLOSES), folder=tmp_path, KEY=running.key)
    assert list(map(float, said.strip("[]\n").split())) == expected(running)
