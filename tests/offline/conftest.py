"""PyTorch's compiler is loaded before any test loads TensorFlow: after it, its LLVM would abort the process."""

import torch._dynamo  # noqa: F401
