# SPDX-License-Identifier: Apache-2.0
"""What a step and a generated token cost through Python, beside the same through C. Reports, judges nothing.

    ninja -C build step_overhead wkv_python_package
    PYTHONPATH=build/python python3 tests/perf/binding_overhead.py build/tests/python/step_overhead [MODEL [THREADS [ROUNDS]]]

In each round C and Python take turns, in an order that changes, and a round's Python is compared with the same round's C: a
machine that gets slower does so for both. The share of C's speed is the median of the rounds, with their quartiles; where
others use the machine, more rounds help. A small model on one thread shows the overhead best.
"""
import pathlib
import statistics
import subprocess
import sys
import time

import wkv

ROOT = pathlib.Path(__file__).resolve().parents[2]
program = sys.argv[1]
path = sys.argv[2] if len(sys.argv) > 2 else str(ROOT / 'tests/data/rnd_a/weights/rnd_a.bf16.pth')
threads = int(sys.argv[3]) if len(sys.argv) > 3 else 1
rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 15
model = wkv.Model(path, device='cpu', threads=threads)


def time_steps(count, step):
    for _ in range(count // 10):
        step()
    start = time.perf_counter_ns()
    for _ in range(count):
        step()
    return (time.perf_counter_ns() - start) / count


def c_times(steps, tokens):
    answer = subprocess.run([program, path, str(threads), str(steps), str(tokens)], capture_output=True, text=True, check=True)
    return list(map(float, answer.stdout.split()))


def python_step(count, has_room):
    cache = model.cache()
    out = cache.step([5])
    return time_steps(count, (lambda: cache.step([5], out)) if has_room else lambda: cache.step([5]))


def python_generation(count):
    cache = model.cache()
    for _ in range(count // 10):
        cache.step([5])
    generation = model.generate(prompt_tokens=[5], cache=cache, max_tokens=count, ignore_end=True)
    start = time.perf_counter_ns()
    for _ in generation:
        pass
    return (time.perf_counter_ns() - start) / count


cache = model.cache()
probe = min(time_steps(10, lambda: cache.step([5])) for _ in range(3))
count = max(50, min(20000, int(0.4e9 / probe)))  # about half a second
work = {
    'C, step': lambda: c_times(count, 1)[0],
    'Python, step(tokens, out)': lambda: python_step(count, True),
    'Python, step([token])': lambda: python_step(count, False),
    'C, generation': lambda: c_times(count // 10, count)[1],
    'Python, generation': lambda: python_generation(count),
}
columns = {name: [] for name in work}
for turn in range(rounds):
    for name in work if turn % 2 else reversed(work):
        columns[name].append(work[name]())

print(f'{model}\n{threads} threads, {count} tokens, {rounds} rounds, microseconds a token: median (lowest to highest)')
for name, values in columns.items():
    line = f'{name:26} {statistics.median(values) / 1000:9.2f} ({min(values) / 1000:.2f} to {max(values) / 1000:.2f})'
    if not name.startswith('C'):
        base = columns['C, step' if 'step' in name else 'C, generation']
        more = statistics.median(one - c for one, c in zip(values, base)) / 1000
        low, share, high = statistics.quantiles((100 * c / one for one, c in zip(values, base)), n=4)
        line += f"  {more:+.2f} us, {share:.1f} % of C's tokens/s ({low:.1f} to {high:.1f})"
    print(line)
