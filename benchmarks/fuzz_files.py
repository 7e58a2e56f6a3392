"""Load damaged and malicious files, and count how that ends.

Each file has to end in an agent, or in an error of our own, within 5 seconds and with little
memory. Compiling an agent may take longer. After most mutations, the checksum is computed anew,
because otherwise it would refuse every file.

    python benchmarks/fuzz_files.py --files 10000 --processes 2
"""

import argparse
import collections
import copy
import hashlib
import io
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from pathlib import Path

import numpy as np

TIME_LIMIT = 5.0  # seconds of the processor; an agent that is loaded may have to be compiled, too
STUCK = 60.0  # seconds of the clock, after which a load is interrupted
MEMORY_LIMIT = 3 * 2**30  # bytes of address space beyond those of the first load
EXTRA_MEMORY = 128 * 2**20  # bytes that a load may take beyond twice the file and the agent

HOST = "host"
"""The name of a file that is loaded with its environment, too."""

TRAP = "fuzz_trap"
"""A module that files name. Importing it leaves a trace."""

WRONG = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31 - 1, 2**31, 2**62, 10**9, 10**12, 10**15),
    *(0.0, -0.5, 0.5, 3.0, 1e9, 1e300, float("nan"), float("inf"), float("-inf")),
    *("", "x", "auto", "inf", "float32", "object", "V1000000000", "../../etc/passwd", "x" * 5_000),
    *(f"{TRAP}:Trap-v0", TRAP, "GymV26Environment-v0", "CartPole-v1", "params", "replay"),
    *([], [0], [-1], [10**9, 10**9], [10**9] * 3, [1] * 2_000, [[1], [1, 2]], [[[[]]]], ["a"]),
    *({}, {"x": 1}, {"linear": [1]}, {"linear": [1, "a"]}, {"function": "f"}, {"linear": [1, 0]}),
]


def build(header, data, text, fix=True):
    """Return the bytes of a file from its parts, with the right checksum if `fix`."""
    header = dict(header)
    metadata = dict(header.get("__metadata__", {}))
    metadata["agentzoo"] = text
    if fix:
        metadata["sha256"] = checksum(header, data, text)
    header["__metadata__"] = metadata
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + data


def checksum(header, data, text):
    digest = hashlib.sha256(text.encode())
    for name in sorted(header.keys() - {"__metadata__"}):
        try:
            start, stop = header[name]["data_offsets"]
            digest.update(name.encode())
            digest.update(data[start:stop])
        except (TypeError, KeyError, ValueError, UnicodeEncodeError):
            return "0" * 64
    return digest.hexdigest()


class Parts:
    """A saved file, taken apart."""

    def __init__(self, content):
        length = int.from_bytes(content[:8], "little")
        self.bytes = content
        self.header = json.loads(content[8 : 8 + length])
        self.data = content[8 + length :]
        self.text = self.header["__metadata__"]["agentzoo"]


def paths(node, here=()):
    """Yield the path of each value in JSON."""
    children = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in children:
        yield (*here, key)
        yield from paths(value, (*here, key))


def parent_of(node, path):
    for key in path[:-1]:
        node = node[key]
    return node


def change_value(rng, data):
    """Replace, remove or rename one entry of JSON, or exchange two of them."""
    places = list(paths(data))
    path = rng.choice(places)
    parent, key = parent_of(data, path), path[-1]
    kind = rng.random()
    if kind < 0.75:
        parent[key] = copy.deepcopy(rng.choice(WRONG))
    elif kind < 0.85:
        del parent[key]
    elif kind < 0.9 and isinstance(parent, dict):
        parent[f"{key}x"] = parent.pop(key)
    elif kind < 0.95:
        other = rng.choice(places)
        parent[key] = copy.deepcopy(parent_of(data, other)[other[-1]])
    elif isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = rng.choice((parent[key] + 1, parent[key] - 1, parent[key] * 10, -parent[key]))
    else:
        parent[key] = [parent[key]]


def mutate_bits(rng, parts, _):
    content = bytearray(parts.bytes)
    end = rng.choice((len(content), len(content) - len(parts.data)))
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(content)


def mutate_length(rng, parts, _):
    content, kind = parts.bytes, rng.random()
    if kind < 0.5:
        return content[: rng.randrange(len(content))]
    if kind < 0.7:
        return content + rng.randbytes(rng.choice((1, 8, 1_000)))
    length = rng.choice((0, 1, 2**15, 2**31, 10**15, 2**63 - 1, 2**64 - 1))
    return length.to_bytes(8, "little") + content[8:]


def mutate_manifest(rng, parts, number):
    """Each field of the manifest in turn, and then any value in it."""
    content = json.loads(parts.text)
    manifest = content["manifest"]
    fields = [*manifest, *(("hyperparameters", name) for name in manifest["hyperparameters"])]
    field, wrong = fields[number % len(fields)], WRONG[number // len(fields) % len(WRONG)]
    if rng.random() < 0.5:
        change_value(rng, manifest)
    elif isinstance(field, tuple):
        manifest[field[0]][field[1]] = copy.deepcopy(wrong)
    else:
        manifest[field] = copy.deepcopy(wrong)
    if rng.random() < 0.1:
        change_value(rng, manifest)
    return build(parts.header, parts.data, json.dumps(content))


def mutate_spec(rng, parts, _):
    """The spaces and the number of environments."""
    content = json.loads(parts.text)
    change_value(rng, content["manifest"]["spec"])
    return build(parts.header, parts.data, json.dumps(content))


def mutate_content(rng, parts, _):
    """Any value beside the manifest: format, tags, rows, blocks."""
    content = json.loads(parts.text)
    manifest = content.pop("manifest")
    change_value(rng, content)
    content.setdefault("manifest", manifest)
    return build(parts.header, parts.data, json.dumps(content))


def mutate_sizes(rng, parts, _):
    """Small files that declare much."""
    content = json.loads(parts.text)
    manifest = content["manifest"]
    huge = rng.choice((10**6, 10**9, 10**12, 10**15, 2**63 - 1, 10**30))
    kind = rng.randrange(8)
    if kind == 0:
        manifest["hyperparameters"]["net_arch"] = [huge] * rng.choice((1, 2, 100))
    elif kind == 1:
        manifest["spec"][0] |= {"shape": [huge] * rng.choice((1, 3)), "low": 0.0, "high": 1.0}
    elif kind == 2:
        manifest["spec"][1] = {"type": "Discrete", "dtype": "int64", "n": huge, "start": 0}
    elif kind == 3:
        manifest["spec"][2] = huge
    elif kind == 4:
        name = rng.choice(list(content["tags"]))
        content |= {"format": 2, "sparse": {name: {"rows": huge, "runs": [[0, 1]]}}}
    elif kind == 5:
        name = rng.choice(list(manifest["hyperparameters"]))
        manifest["hyperparameters"][name] = huge
    elif kind == 6:
        sizes = [key for key in manifest["hyperparameters"] if key.endswith("size")]
        manifest["hyperparameters"][rng.choice(sizes or ["n_steps"])] = huge
        manifest["excluded"] = ["replay", "opt_state"]
    else:
        space = {"type": "MultiBinary", "dtype": "int8", "n": rng.choice((huge, [huge, huge]))}
        manifest["spec"][rng.randrange(2)] = space
    return build(parts.header, parts.data, json.dumps(content))


def mutate_entries(rng, parts, _):
    """Swapped, renamed, removed and wrong entries of the header of safetensors."""
    header = copy.deepcopy(parts.header)
    names = [name for name in header if name != "__metadata__"]
    one, other = rng.choice(names), rng.choice(names)
    kind = rng.randrange(6)
    if kind == 0:
        header[one], header[other] = header[other], header[one]
    elif kind == 1:
        header[rng.choice((f"{one}x", "", "x" * 1_000, "['key']"))] = header.pop(one)
    elif kind == 2:
        del header[one]
    elif kind == 3:
        header[one]["data_offsets"] = list(header[other]["data_offsets"])
    else:
        entry = header[one]
        key = rng.choice(("dtype", "shape", "data_offsets"))
        wrong = {
            "dtype": ["F64", "BF16", "U8", "F8_E4M3", "X"],
            "shape": [[], [0], [10**9, 10**9], [-1], [2**63], [1, *entry["shape"]]],
            "data_offsets": [[0, 10**15], [10, 0], [-1, 4], [0], [0, 2**64]],
        }
        entry[key] = rng.choice([*wrong[key], rng.choice(WRONG)])
    return build(header, parts.data, parts.text)


def mutate_nesting(rng, parts, _):
    """JSON that is nested deeply, or that is no JSON."""
    depth = rng.choice((20, 40, 100, 900, 5_000, 100_000))
    opened, closed = rng.choice((("[", "]"), ('{"spaces":', "}"), ('{"a":[', "]}")))
    nested = opened * depth + "0" + closed * depth
    kind = rng.randrange(4)
    if kind == 0:
        return build(parts.header, parts.data, nested)
    if kind == 1:
        content = json.loads(parts.text)
        for _ in range(depth if depth < 900 else 50):
            content["manifest"]["spec"][0] = {
                "type": "Tuple",
                "spaces": [content["manifest"]["spec"][0]],
            }
        return build(parts.header, parts.data, json.dumps(content))
    key = rng.choice(("hyperparameters", "spec", "episodes", "env_kwargs", "log", "callbacks", "x"))
    content = json.loads(parts.text)
    content["manifest"][key] = "@"
    values = (nested, "9" * rng.choice((25, 6_000)), "1e999", "NaN", "[1,", '"\\ud800"', "1" * 19)
    text = json.dumps(content).replace('"@"', nested if kind == 2 else rng.choice(values))
    return build(parts.header, parts.data, text)


class Trap:
    """A pickle that would leave a trace if it was loaded."""

    def __reduce__(self):
        return os.mkdir, (str(trace()),)


def mutate_kind(rng, parts, _):
    """Files of other kinds."""
    kind = rng.randrange(6)
    if kind == 0:
        return pickle.dumps(Trap())
    if kind == 1:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:  # as torch.save and Stable-Baselines3 do
            archive.writestr("archive/data.pkl", pickle.dumps(Trap()))
        return file.getvalue()
    if kind == 2:
        return rng.randbytes(rng.choice((0, 1, 8, 9, 100, 10_000)))
    if kind == 3:
        return parts.text.encode()
    if kind == 4:
        file = io.BytesIO()
        np.save(file, np.array([Trap()], object), allow_pickle=True)
        return file.getvalue()
    trap = pickle.dumps(Trap())
    return build(parts.header, (trap + parts.data)[: len(parts.data)], parts.text)


MUTATIONS = {
    mutate_bits: 2,
    mutate_length: 1,
    mutate_manifest: 8,
    mutate_spec: 2,
    mutate_content: 3,
    mutate_sizes: 3,
    mutate_entries: 2,
    mutate_nesting: 1,
    mutate_kind: 1,
}


def mutate_folder(rng, folder):
    """Damage a file of a folder with checkpoints, and return what was done."""
    files = sorted(folder.iterdir())
    path, other = rng.choice(files), rng.choice(files)
    kind = rng.choice(("bits", "cut", "remove", "empty", "exchange", "table", "folder", "fifo"))
    content = bytearray(path.read_bytes())
    if kind == "bits":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    elif kind == "cut":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "exchange":
        path.write_bytes(other.read_bytes())
    elif kind == "table":
        path = rng.choice([file for file in files if file.suffix == ".safetensors"])
        parts = Parts(path.read_bytes())
        data = json.loads(parts.text)
        change_value(rng, data["blocks"] if rng.random() < 0.8 else data["checkpoint"])
        path.write_bytes(build(parts.header, parts.data, json.dumps(data)))
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo" and hasattr(os, "mkfifo"):
            os.mkfifo(path)
    return kind


# the files that are mutated


def make_originals(folder):
    """Save small agents of all algorithms and spaces, and a folder of checkpoints."""
    import gymnasium as gym

    import agentzoo

    off = dict(learning_starts=8, train_freq=4, gradient_steps=1, batch_size=4, net_arch=(8,))
    replay = {**off, "buffer_size": 64}

    class Parts(gym.Env):
        observation_space = gym.spaces.Dict(
            {
                "a": gym.spaces.Box(-1, 1, (3,)),
                "b": gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.MultiBinary(2)]),
                "c": gym.spaces.MultiDiscrete([2, 3]),
            }
        )
        action_space = gym.spaces.MultiDiscrete([2, 3])

    catch, pendulum = "agentzoo/Catch-v0", "agentzoo/Pendulum-v0"
    agents = {
        "dqn": agentzoo.DQN(catch, **replay, prioritized_replay=True),
        "qrdqn": agentzoo.QRDQN(catch, **replay, n_quantiles=5),
        "sac": agentzoo.SAC(pendulum, **replay, normalize_obs=True),
        "mpo": agentzoo.MPO(pendulum, **replay),
        "ppo": agentzoo.PPO(catch, n_steps=8, batch_size=8, net_arch=(8,), n_envs=2),
        "impala": agentzoo.IMPALA(catch, n_steps=8, net_arch=(8,), recurrent="gru"),
        "parts": agentzoo.PPO(Parts, n_steps=8, batch_size=8, net_arch=(8,)),
    }
    # This file holds Python environments in the middle of an episode.
    agents[HOST] = agentzoo.DQN("CartPole-v1", **replay, n_envs=2)
    agents[HOST].learn(24, progress_bar=False)
    for name, agent in agents.items():
        agent.save(folder / name)
    agents["dqn"].save(folder / "dqn_without_replay", exclude="replay")
    make_checkpoints(folder / "checkpoints", agents["dqn"])


def make_checkpoints(folder, agent):
    """Write two checkpoints of an agent that share blocks of a large array."""
    import jax

    from agentzoo.checkpoint import CheckpointStore
    from agentzoo.training import session as sessions

    saved = {}

    def keep(_, tree, manifest):
        saved.update(tree=tree, manifest=manifest)

    original, sessions.checkpoint.save = sessions.checkpoint.save, keep
    try:
        agent.save("nowhere")
    finally:
        sessions.checkpoint.save = original
    store, rng = CheckpointStore(folder), np.random.default_rng(0)
    large = rng.integers(0, 255, (3, 2**20), np.uint8)
    # A checkpoint may hold the environments of another machine. Loading ignores them.
    tree = {**saved["tree"], "rollout_state": {"frames": large}}
    store.write(10, tree, saved["manifest"], score=1.0, wait=True)
    large[1, 5] += 1
    store.write(20, jax.tree.map(lambda x: x, tree), saved["manifest"], wait=True)
    assert store.error is None, store.error


# loading


def trace():
    """Return the path that exists if code in a file has run."""
    return Path(os.environ["FUZZ_TRACE"])


class StuckError(BaseException):
    """A load has taken too long."""


def _stop(*_):
    raise StuckError


def resident():
    """Return the peak of the memory of this process since the last call."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return tuple(int(lines[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))


def load(path, folder, env=None):
    """Load a file, or the newest checkpoint of a folder. Return how that ended."""
    import agentzoo
    from agentzoo.checkpoint import CheckpointStore

    try:
        if folder is not None:
            path = CheckpointStore(folder).latest()
            if path is None:
                return "refused", ""
        return "loaded", repr(type(agentzoo.load(path, env)))
    except (agentzoo.ConfigurationError, FileNotFoundError) as error:
        return "refused", str(error)
    except StuckError:
        return "stuck", traceback.format_exc()
    except BaseException:
        return "foreign", traceback.format_exc()


def run_case(number, originals, checkpoints, scratch):
    """Mutate and load one file. Return what it was, how it ended, and what it cost."""
    rng = random.Random(number)
    folder = env = None
    if number % 10 == 9:
        folder = scratch / "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(checkpoints, folder)
        what = f"checkpoints {mutate_folder(rng, folder)}"
        path, size = folder / "step_000000020.safetensors", 8 * 2**20
        if rng.random() < 0.5:
            folder = None
    else:
        name = rng.choice(sorted(originals))
        mutate = rng.choices(list(MUTATIONS), MUTATIONS.values())[0]
        content = mutate(rng, originals[name], number)
        path, size = scratch / "agent.safetensors", len(content)
        path.write_bytes(content)
        what = f"{name} {mutate.__name__}"
        env = "CartPole-v1" if name == HOST and number % 2 else None
    _, before = resident()
    began = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, STUCK)
    outcome, message = load(path, folder, env)
    signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.process_time() - began
    peak, _ = resident()
    if outcome == "refused" and peak - before > 2 * size + EXTRA_MEMORY:
        outcome = "memory"
        message = f"{(peak - before) / 2**20:.0f} MiB: {message}"
    if outcome == "refused" and seconds > TIME_LIMIT:
        outcome = "slow"
    if trace().exists() or TRAP in sys.modules:
        outcome = "code"
    return what, outcome, message, seconds, peak - before


def prepare(folder):
    """Read the originals, and load each of them once."""
    os.environ["FUZZ_TRACE"] = str(folder / "trace")
    (folder / f"{TRAP}.py").write_text(f"import os\nos.mkdir({str(folder / 'trace')!r})\n")
    sys.path.insert(0, str(folder))
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _stop)
    files = {path.stem: path for path in (folder / "originals").glob("*.safetensors")}
    for path in files.values():
        outcome, message = load(path, None)
        assert outcome == "loaded", (path, message)
    outcome, message = load(None, folder / "originals" / "checkpoints")
    assert outcome == "loaded", message
    return {name: Parts(path.read_bytes()) for name, path in files.items()}


def work(folder, numbers, results):
    """Run cases in a process of its own, under a limit of memory."""
    originals = prepare(folder)
    with open("/proc/self/status") as status:
        size = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_LIMIT,) * 2)
    scratch = Path(tempfile.mkdtemp(dir=folder))
    for number in iter(numbers.get, None):
        results.put((number, "begun"))
        case = run_case(number, originals, folder / "originals" / "checkpoints", scratch)
        results.put((number, *case))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        os.environ.update(cache, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
        (folder / "originals").mkdir()
        make_originals(folder / "originals")
        counts, worst = run_processes(folder, options)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    print(f"Slowest: {worst['seconds']:.1f} s of the processor.")
    print(f"Most memory of a file that was refused: {worst['memory'] / 2**20:.0f} MiB.")
    sys.exit(0 if counts.keys() <= {"loaded", "refused"} else 1)


def run_processes(folder, options):
    """Run all cases in processes that are replaced if they die. Count the outcomes."""
    context = multiprocessing.get_context("spawn")
    numbers, results = context.Queue(), context.Queue()
    last = options.first + options.files
    for number in [*range(options.first, last), *[None] * options.processes]:
        numbers.put(number)
    start = lambda: context.Process(target=work, args=(folder, numbers, results))  # noqa: E731
    workers = [start() for _ in range(options.processes)]
    for worker in workers:
        worker.start()
    counts, open_cases = collections.Counter(), {}
    worst = {"seconds": 0.0, "memory": 0.0}
    while sum(counts.values()) < options.files:
        try:
            number, what, *ended = results.get(timeout=5)
        except Exception:
            for i, worker in enumerate(workers):
                if worker.exitcode not in (None, 0):
                    workers[i] = start()
                    workers[i].start()
            dead = [n for n, began in open_cases.items() if time.time() - began > 3 * STUCK]
            for number in dead:
                del open_cases[number]
                counts["died"] += 1
                print(f"file {number} ended the process or hung", flush=True)
            continue
        if not ended:
            open_cases[number] = time.time()
            continue
        open_cases.pop(number, None)
        outcome, message, seconds, memory = ended
        counts[outcome] += 1
        worst["seconds"] = max(worst["seconds"], seconds)
        if outcome == "refused":
            worst["memory"] = max(worst["memory"], memory)
        if outcome not in ("loaded", "refused"):
            print(f"file {number} ({what}): {outcome}, {seconds:.1f} s\n{message}", flush=True)
        if sum(counts.values()) % 500 == 0:
            print(dict(counts), flush=True)
    for worker in workers:
        worker.join()
    return counts, worst


if __name__ == "__main__":
    main()
