"""The lazy tensor: handles on graph values, what is computed when, gradients, and traces."""

from tilewright.tensor.errors import (
    ArgumentError,
    AxisError,
    DTypeError,
    GradientError,
    IndexingError,
    LeakedTensorError,
    ShapeError,
    TracedValueError,
)
from tilewright.tensor.handle import Tensor, apply, from_buffer, from_value, literal, operand_value, to_array
from tilewright.tensor.lazy import realize_tensors
from tilewright.tensor.modes import (
    autocast,
    enable_grad,
    is_grad_enabled,
    modes,
    no_grad,
    set_grad_enabled,
    suspend_trace,
)

__all__ = [
    "ArgumentError", "AxisError", "DTypeError", "GradientError", "IndexingError", "LeakedTensorError", "ShapeError",
    "Tensor", "TracedValueError", "apply", "autocast", "enable_grad", "from_buffer", "from_value", "is_grad_enabled", "literal",
    "modes", "no_grad", "operand_value", "realize_tensors", "set_grad_enabled", "suspend_trace", "to_array",
]  # fmt: skip
