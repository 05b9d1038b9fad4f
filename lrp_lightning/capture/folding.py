"""Simplify a recorded graph: remove unused operators, and precompute those that read only weights."""

from __future__ import annotations

import torch
from torch import Tensor, fx

__all__ = ["drop_unread", "fold_constants", "without_dead_code"]

aten = torch.ops.aten

_VIEWS = {aten.alias.default, aten.detach.default, aten.expand.default, aten.slice.Tensor, aten.view.default}


def without_dead_code(graph: fx.Graph) -> None:
    """Erase operators whose result is unused, and views that do not change a tensor.

    The graph must be functional: no operator writes to its inputs.
    """
    for node in graph.nodes:
        if node.target in _VIEWS and "val" in node.meta and "val" in node.args[0].meta:
            same, whole = node.meta["val"], node.args[0].meta["val"]
            if same.shape == whole.shape and same.stride() == whole.stride():
                node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def fold_constants(module: fx.GraphModule) -> None:
    """Compute values that depend only on weights once, and keep them, and the weights that are still read, in buffers.

    Values that would take more memory than the weights they depend on, such as a weight expanded over a batch, stay in the
    program.
    """
    known: dict[fx.Node, Tensor] = {}
    largest: dict[fx.Node, int] = {}  # of the weights that a value depends on
    for node in module.graph.nodes:
        if node.op == "get_attr":
            known[node] = getattr(module, node.target).detach()
            largest[node] = known[node].numel()
        elif node.op == "call_function" and node.all_input_nodes and all(arg in known for arg in node.all_input_nodes):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda arg: known[arg])
            with torch.no_grad():
                value = node.target(*args, **kwargs)
            most = max(largest[arg] for arg in node.all_input_nodes)
            if isinstance(value, Tensor) and value.numel() <= most:
                known[node], largest[node] = value, most
    weights = {known[node].untyped_storage().data_ptr() for node in known if node.op == "get_attr"}
    kept = [
        node
        for node, value in known.items()
        if value.untyped_storage().data_ptr() not in weights  # a view of a weight, such as its transpose, is free
        and any(user not in known for user in node.users)
    ]
    for n, node in enumerate(kept):
        name = f"folded_{n}"
        module.register_buffer(name, known[node])
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(name), delete_user_cb=lambda user: user not in known)
    without_dead_code(module.graph)
    drop_unread(module)
    for name, value in _owned(module):
        delattr(module, name)
        module.register_buffer(name, value.detach().clone())
    module.recompile()


def drop_unread(module: fx.GraphModule) -> None:
    """Remove the weights and constants that no operator reads."""
    read = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in _owned(module):
        if name not in read:
            delattr(module, name)


def _owned(module: fx.GraphModule) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
