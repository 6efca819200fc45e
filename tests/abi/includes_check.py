# SPDX-License-Identifier: Apache-2.0
"""Dependencies between rooms point one way: include <- base <- formats <- model <- state, text <- engine <- api."""
import re

from headers import ROOT, finish

LEVELS = {'base': 0, 'formats': 1, 'model': 2, 'state': 3, 'text': 3, 'engine': 4, 'api': 5}
SEES_KERNELS = {'model', 'engine'}
DOORS = {"kernels/table.h", "kernels/device.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)
SUFFIXES = {'.c', '.cc', '.cpp', '.cu', '.cuh', '.h', '.hpp', '.i'}
SEARCHED = ('lib', 'include', '', 'examples', 'kernels')


def resolve(source, name):
    """The file of this repository that an include names, relative to the root; None for one of somebody else."""
    for folder in [source.parent] + [ROOT / f for f in SEARCHED]:
        path = (folder / name).resolve()
        if path.is_file() and ROOT in path.parents:
            return path.relative_to(ROOT)
    return None


def is_allowed(source, target):
    where, to = source.parts, target.parts
    if where[0] == 'include':
        return to[0] == 'include'
    if where[0] == 'kernels':
        return to[0] == 'kernels'
    if where[0] == 'bindings':
        return to[0] in ('include', 'bindings')
    if where[0] == 'examples':
        return to[0] in ('include', 'examples')
    if to[0] == 'kernels':
        return str(target) in DOORS and where[1] in SEES_KERNELS
    if to[0] == 'lib':
        return to[1] == where[1] or LEVELS.get(to[1], 99) < LEVELS.get(where[1], -1)
    return to[0] == 'include'


problems, count = [], 0
for room in ('include', 'lib', 'kernels', 'bindings', 'examples'):
    for path in sorted((ROOT / room).rglob('*')):
        if path.suffix not in SUFFIXES:
            continue
        source = path.relative_to(ROOT)
        for name in INCLUDE.findall(path.read_text()):
            target = resolve(path, name)
            count += 1
            if target and not is_allowed(source, target):
                problems.append(f'{source} may not include {target}')
        if source.parts[0] == 'lib' and source.parts[1] not in LEVELS:
            problems.append(f'{source}: no such room')
if count < 50:
    problems.append(f'only {count} includes found')
finish(f'{count} includes', problems)
