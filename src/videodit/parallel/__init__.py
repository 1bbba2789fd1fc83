"""Several processes hold one model: weights in shards, tokens in parts. All of it wraps a finished network from outside."""

from videodit.parallel.mesh import Parallel, build, wrap

__all__ = ["Parallel", "build", "wrap"]
