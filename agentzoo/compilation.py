"""The cache of compiled programs, which saves compilation from one process to the next."""

import os
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache


def use_compilation_cache(folder: str | os.PathLike[str] | None = None) -> Path:
    """Keep compiled programs in a folder from now on, and load programs that are there already.

    Compilation dominates short runs. The command line calls this function on its own. A program is
    found again only if everything that it depends on is the same, including the versions of
    packages and the processor. Nothing removes old programs from the folder.

    Args:
      folder: the folder. The default is the folder that JAX has been told to use
        (`JAX_COMPILATION_CACHE_DIR`), or else "agentzoo" in the user's folder for caches
        (`XDG_CACHE_HOME`, or `~/.cache`).

    Returns:
      The path of the folder.
    """
    given = folder or jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if not given:
        given = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentzoo"
    path = Path(given).expanduser()
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    # Otherwise JAX ignores the new folder if it has compiled a program before.
    compilation_cache.reset_cache()
    return path
