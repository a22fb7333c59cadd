"""One version of one model: a SavedModel loaded into a session, and its signatures.

A TensorFlow 1 session runs SavedModels of every kind (tf.Module, Keras, TF1), as TensorFlow Serving itself does. A
callable made with ``inter_op_thread_pool = -1`` runs the graph in the calling thread: 6–18 µs a call for a small
model, against 255–319 µs through ``tf.saved_model`` signature functions.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from infscale.servers.asgi.status import Code, StatusError
from infscale.servers.embedded.runtime.tensors import Array

DEFAULT_SIGNATURE = "serving_default"
METHODS = ("tensorflow/serving/predict", "tensorflow/serving/classify", "tensorflow/serving/regress")
_MAX_RUNNERS = 64
_STEADY = """
Placeholder PlaceholderWithDefault Const Identity IdentityN NoOp StopGradient PreventGradient EnsureShape Cast DecodeRaw
PartitionedCall StatefulPartitionedCall VarHandleOp ReadVariableOp VariableV2
MatMul BatchMatMul BatchMatMulV2 Einsum Conv2D Conv3D DepthwiseConv2dNative MaxPool AvgPool
BiasAdd FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
Relu Relu6 LeakyRelu Elu Selu Sigmoid Tanh Softplus Softsign Softmax LogSoftmax Erf
Add AddV2 AddN Sub Mul Div RealDiv DivNoNan FloorDiv FloorMod Minimum Maximum Pow SquaredDifference
Abs Neg Sign Square Sqrt Rsqrt Reciprocal Exp Expm1 Log Log1p Sin Cos Floor Ceil Round Rint
Sum Mean Prod Max Min All Any ArgMax ArgMin TopKV2 Cumsum
Equal NotEqual Less LessEqual Greater GreaterEqual LogicalAnd LogicalOr LogicalNot Select SelectV2 ClipByValue
Reshape Squeeze ExpandDims Transpose Shape ShapeN Rank Size Slice StridedSlice Pack Unpack ConcatV2 Split SplitV
GatherV2 ReverseV2 ZerosLike OnesLike
"""
STEADY = frozenset(_STEADY.split())
"""Operations whose time follows from the sizes of their inputs, whatever the values.

That of others does not: loops, what makes tensors as large as a value says (Fill, Range, Tile, Pad), and what reads
texts and files, where a few bytes may be a large picture.
"""

Runner = Callable[..., Sequence[Array]]
Sizes = tuple[tuple[int, ...], ...]
"""Sizes of a signature's inputs, as the runner tells them apart."""


def make_runner(session: Any, feeds: Sequence[str], fetches: Sequence[str]) -> Runner:
    """Return a function of the fed arrays, in order, that returns the fetched ones.

    The fast way is a private method of TensorFlow's session. Where a version of TensorFlow lacks it or its contract
    changed, the public ``make_callable`` gives the same results more slowly.
    """
    try:
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        options.run_options.inter_op_thread_pool = -1
        runner: Runner = session._make_callable_from_options(options)
    except (AttributeError, TypeError, ValueError):
        runner = session.make_callable(list(fetches), feed_list=list(feeds))
    return runner


def operations(graph: Any, tensors: Iterable[str]) -> set[str]:
    """Return the operations by which a ``GraphDef`` makes tensors, those in the functions that it calls among them."""
    nodes = {node.name: node for node in graph.node}
    bodies = {function.signature.name: function.node_def for function in graph.library.function}
    reached: dict[str, Any] = {}
    waiting = list(tensors)
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in reached:
            reached[name] = nodes[name]
            waiting += nodes[name].input
    found = list(reached.values())
    for node in found:  # it grows by the bodies of functions
        for attribute in node.attr.values():
            for function in (attribute.func, *attribute.list.func):
                found += bodies.pop(function.name, ())
    return {node.op for node in found}


class Signature:
    """A named function of a model: the aliases of its inputs and outputs, and a way to run it."""

    def __init__(self, name: str, definition: meta_graph_pb2.SignatureDef, session: Any, graph: Any) -> None:
        self.name = name
        self.method = definition.method_name
        self.inputs = {alias: definition.inputs[alias].name for alias in sorted(definition.inputs)}
        self.dtypes = {alias: definition.inputs[alias].dtype for alias in self.inputs}
        self.outputs = {alias: definition.outputs[alias].name for alias in sorted(definition.outputs)}
        self.defaults = {alias: definition.defaults[alias] for alias in sorted(definition.defaults)}
        self.steady = operations(graph, self.outputs.values()) <= STEADY
        # Seconds that a run takes, by the sizes of the inputs; the runner keeps them.
        self.seconds: dict[Sizes, float] = {}
        self._session = session
        self._runners: dict[tuple[str, ...], tuple[Runner, list[int]]] = {}

    def run(self, feeds: dict[str, Array], wanted: Sequence[str] = ()) -> dict[str, Array]:
        """Run the model on an array for each input alias, and return the wanted outputs, or all.

        Raises:
            StatusError: with the code and the text of the kernel that refused its input.
        """
        aliases = tuple(wanted) or tuple(self.outputs)
        runner, positions = self._runner(aliases)
        try:
            results = runner(*[feeds[alias] for alias in self.inputs])
        except tf.errors.OpError as error:
            raise StatusError(Code(error.error_code), error.message) from error
        # TensorFlow returns a single string as bytes, not as an array of no dimension.
        arrays = [np.array(r, dtype=object) if isinstance(r, bytes) else r for r in results]
        return {alias: arrays[position] for alias, position in zip(aliases, positions, strict=True)}

    def _runner(self, aliases: tuple[str, ...]) -> tuple[Runner, list[int]]:
        entry = self._runners.get(aliases)
        if entry is None:
            # Several aliases may name one tensor; a tensor is fetched once.
            names = [self.outputs[alias] for alias in aliases]
            fetches = list(dict.fromkeys(names))
            runner = make_runner(self._session, list(self.inputs.values()), fetches)
            entry = (runner, [fetches.index(name) for name in names])
            if len(self._runners) >= _MAX_RUNNERS:  # output filters come from clients: bounded
                self._runners.clear()
            self._runners[aliases] = entry
        return entry


class Servable:
    """A loaded version of a model."""

    def __init__(self, name: str, version: int, path: Path, tags: Sequence[str] = ("serve",)) -> None:
        """Load the SavedModel at ``path``.

        Raises:
            Exception: whatever TensorFlow says about a model that cannot be loaded.
        """
        self.name = name
        self.version = version
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            graph = tf.compat.v1.saved_model.loader.load(self._session, list(tags), str(path))
        self.definitions = get_model_metadata_pb2.SignatureDefMap()
        for key in graph.signature_def:
            self.definitions.signature_def[key].CopyFrom(graph.signature_def[key])
        self.signatures = {
            key: Signature(key, definition, self._session, graph.graph_def)
            for key, definition in graph.signature_def.items()
        }
