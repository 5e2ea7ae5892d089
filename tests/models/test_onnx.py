"""ONNX models written by hand, run by onnxruntime."""

import numpy as np
import onnxruntime
import pytest

from models.onnx import MICROSOFT, Graph


def session(graph: Graph) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), values)
    return onnxruntime.InferenceSession(graph.model(), options, providers=["CPUExecutionProvider"])


def test_nodes_attributes_and_both_kinds_of_initialisers_arrive() -> None:
    graph = Graph()
    graph.input("x", np.float32, ["rows", 3])
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    product = graph.add("Gemm", ["x", graph.weight("w", weight), graph.constant("b", np.ones(2, np.float32))], "y")
    left, right = graph.split("Split", [product], ["l", "r"], axis=1, num_outputs=2)
    joined = graph.add("Concat", [right, left], "j", axis=1)
    scaled = graph.add("FusedMatMul", [joined, joined], "s", MICROSOFT, transB=1, alpha=0.5)
    graph.add("Transpose", [scaled], "t", perm=[1, 0])
    graph.output("t", np.float32, ["rows", "rows"])
    x = np.array([[1, 2, 3], [-1, 0, 300]], dtype=np.float32)
    (found,) = session(graph).run(None, {"x": x})
    y = (x @ weight + 1)[:, ::-1]
    np.testing.assert_allclose(found, (0.5 * y @ y.T).T, rtol=1e-6)


def test_numbers_of_every_size_are_written() -> None:
    graph = Graph()
    graph.input("x", np.int64, [1])
    numbers = np.array([0, 127, 128, 300, 1 << 40, -1], dtype=np.int64)
    graph.add("Add", ["x", graph.constant("n", numbers)], "y")
    graph.output("y", np.int64, [6])
    (found,) = session(graph).run(None, {"x": np.array([5], dtype=np.int64)})
    np.testing.assert_array_equal(found, numbers + 5)


def test_an_array_of_another_type_is_refused() -> None:
    with pytest.raises(KeyError):
        Graph().constant("x", np.zeros(2, np.float64))
