"""Compiled programs that are kept from one process to the next."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def use_compilation_cache(folder: str | os.PathLike[str] | None = None) -> Path:
    """Looks for compiled programs in a folder from now on, and keeps new ones there: most of a short run is compilation.

    The command line does so on its own. Programs are found again by all that they depend on,
    versions and processor included; nothing removes old ones but their user.

    Args:
      folder: where to. By default the one that JAX has been told to use
        (`JAX_COMPILATION_CACHE_DIR`), or else "agentzoo" in the user's folder for caches
        (`XDG_CACHE_HOME`, or `~/.cache`).

    Returns:
      The folder.
    """
    given = folder or jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    path = Path(
        given or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentzoo"
    ).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()  # else JAX ignores it once a program has been compiled
    return path
