"""The process of one run: `python -m agentzoo.lab.worker FOLDER JOBS`.

The process ends when its standard input does, so that it does not outlive the benchmark.
"""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path


def main() -> None:
    """Do the runs that the arguments describe. The exit code is 1 if they have failed."""
    # Ctrl-C reaches all processes of a terminal. The benchmark decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from agentzoo.compilation import use_compilation_cache
    from agentzoo.lab.jobs import Job
    from agentzoo.lab.runs import perform

    folder, jobs = Path(sys.argv[1]), [Job(**job) for job in json.loads(sys.argv[2])]
    use_compilation_cache()
    try:
        perform(folder, jobs)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _end_with_parent() -> None:
    """End this process when the benchmark has ended, however that has ended."""
    os.read(0, 1)  # nothing is ever written to it
    os._exit(1)


if __name__ == "__main__":
    main()
