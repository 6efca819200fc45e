# SPDX-License-Identifier: Apache-2.0
"""Adds up what tests/gpu.sh ran.  usage: gpu_summary.py PARTS_FILE
PARTS_FILE has a line a part: kind, name, log, exit status and seconds, separated by tabs. Of kind `tests` every case of
GoogleTest counts; of kinds `sanitizer`, `bench` and `setup` the run counts as one. Logs are read rather than XML, which
a test that hangs or crashes never writes. The last line is `N passed, N failed`."""
import collections
import pathlib
import re
import sys

ENDED = re.compile(r'^\[ +(OK|FAILED|SKIPPED) +\] (\S+?),? .*\(\d+ ms\)$', re.M)
BEGUN = re.compile(r'^\[ RUN +\] (\S+)', re.M)
REASON = re.compile(r': Skipped\n+(.+)')
TIMED_OUT = {124, 137}


def cases_of(text):
    """(outcome, name) of each case; one that was begun and never ended has failed."""
    ended = {name: outcome for outcome, name in ENDED.findall(text)}
    begun = BEGUN.findall(text)
    return [(ended.get(name, 'LOST'), name) for name in begun]


rows, failures = [], []
passed = failed = 0
skips = collections.Counter()
for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
    kind, name, log, status, seconds = line.split('\t')
    path, status = pathlib.Path(log), int(status)
    text = path.read_text(errors='replace') if path.is_file() else ''
    cases = cases_of(text)
    count = collections.Counter(outcome for outcome, _ in cases)
    lost = 'ran out of time in' if status in TIMED_OUT else f'ended with status {status} in'
    wrong = [f'{name}: {case}' if outcome == 'FAILED' else f'{name}: {lost} {case}'
             for outcome, case in cases if outcome in ('FAILED', 'LOST')]
    for reason in REASON.findall(text):
        skips[name, reason.strip()] += 1
    if kind == 'tests':
        good, bad = count['OK'], count['FAILED'] + count['LOST']
        if status != 0 and not bad:
            bad, wrong = 1, [f'{name}: ended with status {status}']
        elif not cases:
            bad, wrong = 1, [f'{name}: no test ran']
        note = f"{count['SKIPPED']} skipped" if count['SKIPPED'] else ''
    elif kind == 'skipped':
        good = bad = 0
        note = text.strip()
    else:
        good = int(status == 0 and (kind != 'sanitizer' or count['OK'] > 0) and not wrong)
        bad = 1 - good
        note = f"{count['OK']} cases" if kind == 'sanitizer' else ''
        if bad and kind == 'sanitizer' and not wrong:
            found = re.findall(r'^=+ (?:ERROR|RACECHECK) SUMMARY: .*', text, re.M)
            wrong = [f'{name}: ' + (found[-1].strip('= ') if found else 'no test ran' if status == 0 else
                                    f'ended with status {status}')]
        elif bad and not wrong:
            last = text.strip().splitlines()
            wrong = [f'{name}: ' + ('ran out of time' if status in TIMED_OUT else last[-1] if last else
                                    f'ended with status {status}')]
    rows.append((name, str(good), str(bad), seconds, note))
    failures += [(why, log) for why in wrong]
    passed += good
    failed += bad

header = ('part', 'passed', 'failed', 'seconds', '')
widths = [max(len(row[i]) for row in [header, *rows]) for i in range(5)]
print()
for row in [header, *rows]:
    print('  '.join(cell.ljust(width) if i in (0, 4) else cell.rjust(width)
                    for i, (cell, width) in enumerate(zip(row, widths))).rstrip())
print()
for why, log in failures:
    print(f'FAILED   {why}  ({log})')
for (name, reason), count in sorted(skips.items()):
    print(f'skipped  {name}: {count}: {reason}')
print(f'{passed} passed, {failed} failed')
raise SystemExit(1 if failed else 0)
