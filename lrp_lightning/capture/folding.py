"""What a recorded graph can do without: operators that nothing reads, and those that read weights alone."""

from __future__ import annotations

import torch
from torch import Tensor, fx

__all__ = ["drop_unread", "fold_constants", "without_dead_code"]

aten = torch.ops.aten

_VIEWS = {aten.alias.default, aten.detach.default, aten.expand.default, aten.slice.Tensor, aten.view.default}


def without_dead_code(graph: fx.Graph) -> None:
    """Erase every operator whose result nothing reads, and views of a whole tensor as it is.

    The graph must be functional: no operator writes to its inputs.
    """
    for node in graph.nodes:
        if node.target in _VIEWS and "val" in node.meta and "val" in node.args[0].meta:
            same, whole = node.meta["val"], node.args[0].meta["val"]
            if same.shape == whole.shape and same.stride() == whole.stride():
                node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))


def fold_constants(module: fx.GraphModule) -> None:
    """Compute all that depends on weights alone once, and keep it, as the weights that are still read, in buffers.

    What would take more memory than the weights it is made of, as a weight expanded over a batch does, is left in the
    program.
    """
    known: dict[fx.Node, Tensor] = {}
    largest: dict[fx.Node, int] = {}  # of the weights that a value is made of
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
        if value.untyped_storage().data_ptr() not in weights  # a view of a weight, such as its transpose, costs nothing
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
    """Let go of the weights and constants that no operator reads."""
    read = {node.target for node in module.graph.nodes if node.op == "get_attr"}
    for name, _ in _owned(module):
        if name not in read:
            delattr(module, name)


def _owned(module: fx.GraphModule) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
