# SPDX-License-Identifier: Apache-2.0
"""What a step and a generated token cost through Python, beside the same through C. Reports, judges nothing.

    ninja -C build step_overhead wkv_python_package
    PYTHONPATH=build/python python3 tests/perf/binding_overhead.py build/tests/python/step_overhead [MODEL [THREADS]]

Rounds of C and Python take turns. A small model on one thread shows the overhead best; on a machine that others use, look
at the differences of the lowest.
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
model = wkv.Model(path, device='cpu', threads=threads)
model.cache().step([5])
probe = time.perf_counter()
model.cache().step([5])
# about half a second a round
COUNT = max(50, min(20000, int(0.3 / max(time.perf_counter() - probe, 1e-6))))


def time_steps(cache, step):
    for _ in range(COUNT // 10):
        step()
    start = time.perf_counter_ns()
    for _ in range(COUNT):
        step()
    return (time.perf_counter_ns() - start) / COUNT


def time_generation(cache):
    generation = model.generate(prompt_tokens=[5], cache=cache, max_tokens=COUNT, ignore_end=True)
    start = time.perf_counter_ns()
    for _ in generation:
        pass
    return (time.perf_counter_ns() - start) / COUNT


columns = {'C, step': [], 'Python, step(tokens, out)': [], 'Python, step([token])': [], 'C, generation': [],
           'Python, generation': []}
for _ in range(9):
    answer = subprocess.run([program, path, str(threads), str(COUNT), str(COUNT)], capture_output=True, text=True, check=True)
    step, token = map(float, answer.stdout.split())
    cache = model.cache()
    out = cache.step([5])
    columns['C, step'].append(step)
    columns['Python, step(tokens, out)'].append(time_steps(cache, lambda: cache.step([5], out)))
    columns['Python, step([token])'].append(time_steps(cache, lambda: cache.step([5])))
    columns['C, generation'].append(token)
    columns['Python, generation'].append(time_generation(cache))

print(f'{model}\n{threads} threads, {COUNT} tokens a round, 9 rounds, microseconds a token: median (lowest to highest)')
for name, values in columns.items():
    c = columns['C, step' if 'step' in name else 'C, generation']
    base, median = statistics.median(c), statistics.median(values)
    line = f'{name:26} {median / 1000:9.2f} ({min(values) / 1000:.2f} to {max(values) / 1000:.2f})'
    if not name.startswith('C'):
        line += (f'  {(median - base) / 1000:+.2f} us (lowest {(min(values) - min(c)) / 1000:+.2f}), '
                 f"{100 * base / median:.1f} % of C's tokens/s")
    print(line)
