"""ONNX Runtime, inference only: the same weights as ONNX graphs, in the operators that its CPU kernels know.

The graphs are built here rather than exported: each is the shortest way to say the model in opset 23, with one
node for layer normalisation, GELU, attention and the LSTM.
"""

import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.cases.base import Arrays, Case, Training
from bench.cases.kernels import kernel_fingerprint
from bench.frameworks import Runner, Unsupported

OPSET, IR_VERSION = 23, 11  # below what ONNX Runtime supports at most


class Graph:
    """Nodes and weights of a graph; `add` returns the name of a node's first output."""

    def __init__(self, parameters: Arrays) -> None:
        self.weights = [numpy_helper.from_array(a, name) for name, a in parameters.items()]
        self.names = set(parameters)
        self.nodes: list[onnx.NodeProto] = []

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"{op.lower()}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0]

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def linear(self, name: str, x: str) -> str:
        """x[N, K] times a weight [N, K] transposed, plus the bias where there is one."""
        bias = [f"{name}.bias"] if f"{name}.bias" in self.names else []
        return self.add("Gemm", x, f"{name}.weight", *bias, transB=1)

    def norm(self, name: str, x: str) -> str:
        return self.add("LayerNormalization", x, f"{name}.weight", f"{name}.bias", axis=-1, epsilon=1e-5)

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.constant(np.array(shape, np.int64)))

    def model(self, x: np.ndarray, output: str) -> onnx.ModelProto:
        kind = TensorProto.FLOAT if x.dtype == np.float32 else TensorProto.INT64
        inputs = [helper.make_tensor_value_info("x", kind, x.shape)]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "model", inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def mlp(g: Graph, x: np.ndarray, options: dict[str, Any]) -> str:
    y, last = "x", len(g.names) - 2  # a weight and a bias each, named 0, 2, 4, ...
    for i in range(0, last, 2):
        y = g.add("Relu", g.linear(f"{i}", y))
    return g.linear(f"{last}", y)


def lenet(g: Graph, x: np.ndarray, options: dict[str, Any]) -> str:
    y = "x"
    for name, padding in (("0", 2), ("3", 0)):
        y = g.add("Conv", y, f"{name}.weight", f"{name}.bias", pads=[padding] * 4)
        y = g.add("MaxPool", g.add("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    y = g.add("Relu", g.linear("7", g.add("Flatten", y)))
    return g.linear("11", g.add("Relu", g.linear("9", y)))


def cnn(g: Graph, x: np.ndarray, options: dict[str, Any]) -> str:
    y = "x"
    for i in (0, 4, 8):
        statistics = ("weight", "bias", "running_mean", "running_var")
        y = g.add("Conv", y, f"{i}.weight", pads=[1] * 4)
        y = g.add("BatchNormalization", y, *(f"{i + 1}.{s}" for s in statistics), epsilon=1e-5)
        y = g.add("MaxPool", g.add("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    return g.linear("13", g.add("Flatten", y))


def gpt(g: Graph, x: np.ndarray, options: dict[str, Any]) -> str:
    """Rows [B T, C] between attentions, so that every linear layer is one Gemm."""
    (batch, tokens), width, heads = x.shape, options["width"], options["heads"]
    positions = g.add("Gather", "positions.weight", g.constant(np.arange(tokens)))
    y = g.reshape(g.add("Add", g.add("Gather", "tokens.weight", "x"), positions), -1, width)
    for i in range(options["layers"]):
        name = f"blocks.{i}"
        qkv = g.linear(f"{name}.qkv", g.norm(f"{name}.norm1", y))
        qkv = g.reshape(qkv, batch, tokens, 3 * width)
        g.nodes.append(
            helper.make_node("Split", [qkv], [f"{qkv}_{n}" for n in "qkv"], axis=-1, num_outputs=3)
        )
        mixed = g.add(
            "Attention", *(f"{qkv}_{n}" for n in "qkv"), is_causal=1, q_num_heads=heads, kv_num_heads=heads
        )
        y = g.add("Add", y, g.linear(f"{name}.projection", g.reshape(mixed, -1, width)))
        hidden = g.add("Gelu", g.linear(f"{name}.expand", g.norm(f"{name}.norm2", y)))
        y = g.add("Add", y, g.linear(f"{name}.contract", hidden))
    y = g.norm("norm", y)
    head = "head.weight" if "head.weight" in g.names else "tokens.weight"
    return g.reshape(g.add("Gemm", y, head, transB=1), batch, tokens, options["vocabulary"])


def lstm(g: Graph, x: np.ndarray, options: dict[str, Any]) -> str:
    """ONNX has time first and the gates in the order in, out, forget, cell."""
    width = options["width"]
    y = g.add("LSTM", g.add("Transpose", "x", perm=[1, 0, 2]), "w", "r", "b", outputs=2, hidden_size=width)
    last = y.removesuffix("_0") + "_1"
    return g.linear("head", g.reshape(last, -1, width))


def onnx_gates(parameters: Arrays) -> Arrays:
    """PyTorch's LSTM weights, gates in, forget, cell, out, as ONNX wants them."""

    def reorder(array: np.ndarray) -> np.ndarray:
        i, f, c, o = np.split(array, 4)
        return np.concatenate([i, o, f, c])

    arrays = {name.removeprefix("lstm.").removesuffix("_l0"): a for name, a in parameters.items()}
    biases = np.concatenate([reorder(arrays["bias_ih"]), reorder(arrays["bias_hh"])])
    gates = {
        "w": reorder(arrays["weight_ih"])[None],
        "r": reorder(arrays["weight_hh"])[None],
        "b": biases[None],
    }
    return gates | {name: a for name, a in parameters.items() if name.startswith("head")}


MODELS: dict[str, Callable[[Graph, np.ndarray, dict[str, Any]], str]] = {
    "mlp": mlp,
    "lenet": lenet,
    "cnn": cnn,
    "gpt": gpt,
    "lstm": lstm,
}


class InferenceRunner:
    """The model's logits, batch after batch."""

    def __init__(self, case: Case) -> None:
        data: Training = case.make()
        parameters = data.parameters | data.buffers
        graph = Graph(onnx_gates(parameters) if case.kind == "lstm" else parameters)
        self.inputs = [x for x, _ in data.batches]
        output = MODELS[case.kind](graph, self.inputs[0], case.options)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = graph.model(self.inputs[0], output).SerializeToString()
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.reset()

    def reset(self) -> None:
        self.order = itertools.cycle(self.inputs)

    def run(self) -> np.ndarray:
        result: np.ndarray = self.session.run(None, {"x": next(self.order)})[0]
        return result

    def fingerprint(self) -> list[float]:
        self.reset()
        return kernel_fingerprint([self.run()])


def prepare(case: Case, mode: str) -> Runner:
    if case.suite != "inference":
        raise Unsupported("ONNX Runtime is measured on inference")
    return InferenceRunner(case)
