"""What in a traced function would have to leave a GPU, by the kernels that TensorFlow has registered.

TensorFlow's package for Linux registers its GPU kernels on machines without a GPU as well, so that this can be tested
anywhere. An operation without a suitable kernel runs on the CPU. Then all that it reads is copied to the host's memory
at each step, and all that it makes is copied back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from tensorflow.core.framework import kernel_def_pb2, node_def_pb2
from tensorflow.python.framework import kernels, op_def_registry

HANDLES = (tf.resource, tf.variant)
"""Types of a small reference to what lies elsewhere, such as a weight; the reference itself is in the host's memory."""
CALLS = ("Placeholder", "NoOp", "PartitionedCall", "StatefulPartitionedCall", "While", "StatelessWhile", "If")
"""Operations that compute nothing themselves; the functions that they call are looked at."""


class Gap(NamedTuple):
    """An operation that a GPU cannot do, or can do only with wide arrays in the host's memory.

    Attributes:
        operation: Type of the operation.
        arrays: Its inputs and outputs, by types and shapes.
        reason: Why it is a gap.
    """

    operation: str
    arrays: str
    reason: str


def gaps(function: tf.types.experimental.ConcreteFunction, width: int) -> set[Gap]:
    """The gaps of a traced function, and of all functions that it calls.

    An operation counts if it touches a weight or a wide array. An operation that is placed on the CPU by `tf.device`
    may touch anything there, but nothing wide may go into it from elsewhere, or come out of it.

    Args:
        function: The traced function.
        width: Least number of entries of a wide array. An unknown length counts as this number, save one unknown
            length of integers and booleans: these are the flat non-zeros of a batch, and what follows from them.
    """
    return {gap for graph in _graphs(function) for gap in _gaps_of(graph, width)}


def _graphs(function: tf.types.experimental.ConcreteFunction) -> list:
    """The graph of a function and the graphs of all functions that it calls."""
    found, todo = {}, [("", function.graph)]
    while todo:
        name, graph = todo.pop()
        if name not in found:
            found[name] = graph
            for node in graph.as_graph_def().node:
                for value in node.attr.values():
                    called = [value.func.name] if value.HasField("func") else [of.name for of in value.list.func]
                    todo += [(of, graph._functions[of].graph) for of in called if of]
    return list(found.values())


def _gaps_of(graph: tf.Graph, width: int) -> Iterator[Gap]:
    for node in graph.as_graph_def().node:
        operation = graph.get_operation_by_name(node.name)
        if node.op not in CALLS and (reason := _reason(operation, node, width)):
            arrays = ", ".join(f"{t.dtype.name} {t.shape}" for t in (*operation.inputs, *operation.outputs))
            yield Gap(node.op, arrays, reason)


def _reason(operation: tf.Operation, node: node_def_pb2.NodeDef, width: int) -> str:
    """Why an operation is a gap; empty if it is none."""
    if _is_on_host(operation):
        return _reason_on_host(operation, width)
    arguments = list(_arguments(operation, node))
    wide = {name for name, tensor in arguments if _is_wide(tensor, width)}
    if not wide and not any(tensor.dtype in HANDLES for _, tensor in arguments):
        return ""
    suitable = [kernel for kernel in _kernels(node.op) if _suits(kernel, node)]
    # A kernel for any device, whose arrays are in the host's memory as a rule, is taken only if there is no other.
    suitable = [kernel for kernel in suitable if kernel.device_type == "GPU"] or suitable
    if not suitable:
        return "no kernel for these types"
    if in_host_memory := wide & {name for kernel in suitable for name in kernel.host_memory_arg}:
        return f"{', '.join(sorted(in_host_memory))} in the host's memory"
    if any(_is_wide(tensor, width) and _is_int32_constant(tensor) for tensor in operation.inputs):
        return "an int32 constant, which TensorFlow keeps in the host's memory"
    return ""


def _reason_on_host(operation: tf.Operation, width: int) -> str:
    """Why an operation that is placed on the host is a gap; what it reads from outside the graph may lie there too."""
    come = [of for of in operation.inputs if not _is_on_host(of.op) and of.op.type not in ("Const", "Placeholder")]
    go = [of for of in operation.outputs if not all(map(_is_on_host, of.consumers()))]
    if any(_is_wide(tensor, width, flat=True) for tensor in come):
        return "wide, and read on the host"
    return "wide, and made on the host" if any(_is_wide(tensor, width, flat=True) for tensor in go) else ""


def _is_on_host(operation: tf.Operation) -> bool:
    return "CPU" in operation.device


def _is_int32_constant(tensor: tf.Tensor) -> bool:
    """Whether it is an int32 constant of the graph, or one outside it that the graph captured."""
    return tensor.dtype == tf.int32 and tensor.op.type in ("Const", "Placeholder")


def _is_wide(tensor: tf.Tensor, width: int, *, flat: bool = False) -> bool:
    """Whether an array is wide; if `flat`, one unknown length is that of a batch, whatever the type."""
    if tensor.dtype in HANDLES:
        return False
    if tensor.shape.rank is None:
        return True
    lengths = list(tensor.shape)
    if None in lengths and (flat or tensor.dtype.is_integer or tensor.dtype == tf.bool or _is_on_host(tensor.op)):
        lengths.remove(None)
    return math.prod(width if length is None else length for length in lengths) >= width


def _arguments(operation: tf.Operation, node: node_def_pb2.NodeDef) -> Iterator[tuple[str, tf.Tensor]]:
    """The inputs and outputs of an operation, each with the name that kernels have for it."""
    definition = op_def_registry.get(node.op)
    for named, tensors in ((definition.input_arg, operation.inputs), (definition.output_arg, operation.outputs)):
        rest = iter(tensors)
        for argument in named:
            count = 1
            if argument.number_attr:
                count = node.attr[argument.number_attr].i
            elif argument.type_list_attr:
                count = len(node.attr[argument.type_list_attr].list.type)
            yield from ((argument.name, next(rest)) for _ in range(count))


@functools.cache
def _kernels(operation: str) -> list[kernel_def_pb2.KernelDef]:
    """The kernels that the runtime chooses from where an operation is placed on a GPU."""
    registered = kernels.get_registered_kernels_for_op(operation).kernel
    return [kernel for kernel in registered if kernel.device_type in ("GPU", "DEFAULT") and not kernel.label]


def _suits(kernel: kernel_def_pb2.KernelDef, node: node_def_pb2.NodeDef) -> bool:
    """Whether a kernel is for the types of an operation."""
    for constraint in kernel.constraint:
        value, allowed = node.attr[constraint.name], constraint.allowed_values.list.type
        if allowed and not set(value.list.type or [value.type]) <= set(allowed):
            return False
    return True
