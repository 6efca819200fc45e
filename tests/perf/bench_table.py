# SPDX-License-Identifier: Apache-2.0
"""Puts results of `bench --json` side by side.  usage: bench_table.py [TITLE=]JSON...
A cell is the median, the share of the roof that bounds it where there is one, and the ratio to another row."""
import json
import pathlib
import sys


def number(value):
    return f'{value:.0f}' if value >= 1000 else f'{value:.1f}' if value >= 100 else f'{value:.3g}'


def cell(result):
    text = number(result['median'])
    if 'share_of_roof' in result:
        text += f" {result['share_of_roof'] * 100:3.0f} %"
    return text


columns, units, facts = [], {}, {}
for argument in sys.argv[1:]:
    title, _, path = argument.rpartition('=')
    report = json.loads(pathlib.Path(path).read_text())
    columns.append((title or pathlib.Path(path).stem, {r['what']: r for r in report['results']}))
    units.update((r['what'], r['unit']) for r in report['results'] if r['what'] not in units)
    for key, value in report['facts'].items():
        facts.setdefault(key, {})[columns[-1][0]] = value

lines = [['', 'unit'] + [title for title, _ in columns]]
for what, unit in units.items():
    lines.append([what, unit] + [cell(results[what]) if what in results else '' for _, results in columns])
for key, values in facts.items():
    if len(set(map(str, values.values()))) == 1 and len(values) == len(columns):
        print(f'{key:14} {next(iter(values.values()))}')
    else:
        for title, value in values.items():
            print(f'{key:14} {title}: {value}')
print()
widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
for line in lines:
    print('  '.join(text.ljust(width) if i < 2 else text.rjust(width)
                    for i, (text, width) in enumerate(zip(line, widths))).rstrip())
