# SPDX-License-Identifier: Apache-2.0
"""A second reader of blobs, written from lib/state/README.md alone: what it finds in tests/data/blobs must be what was
put there. Checksums are checked where the module xxhash is installed."""
import math
import pathlib
import struct
import sys

try:
    import xxhash
except ImportError:
    xxhash = None

FOLDER = pathlib.Path(__file__).resolve().parents[1] / 'data' / 'blobs'
MAGIC = b'\x89WKV\r\n\x1a\n'
KINDS = {1: 'tokens', 2: 'state', 3: 'sampler', 4: 'generation', 5: 'logits'}


class Blob:
    def __init__(self, data):
        def need(condition, what):
            if not condition:
                raise ValueError(what)

        need(data[:8] == MAGIC, 'no blob')
        order, version = struct.unpack_from('<II', data, 8)
        need(order == 0x01020304, 'byte order')
        need(version == 1, 'version')
        (size, header_bytes, count, self.fingerprint, self.position, self.layers, self.width, self.heads,
         self.head_size, self.vocab_size, self.state_type, last, zero) = struct.unpack_from('<QIIQQiiiiiiII', data, 16)
        need(size == len(data), 'length')
        need(header_bytes == 160 + 32 * count + 8 and header_bytes <= 4096, 'header length')
        if xxhash:
            signed, = struct.unpack_from('<Q', data, header_bytes - 8)
            need(xxhash.xxh3_64_intdigest(data[:header_bytes - 8]) == signed, 'header checksum')
        need(zero == 0 and not any(data[144:160]), 'reserved bytes')
        need(self.position < 1 << 63, 'position')
        need(self.heads * self.head_size == self.width, 'heads')
        tokens = struct.unpack_from('<16i', data, 80)
        need(last <= 16 and not any(tokens[last:]), 'last tokens')
        self.last_tokens = tokens[:last]
        need(all(0 <= token < self.vocab_size for token in self.last_tokens), 'token')

        self.sections, end = {}, header_bytes
        for index in range(count):
            kind, flags, offset, length, signed = struct.unpack_from('<IIQQQ', data, 160 + 32 * index)
            need(flags in (0, 1), 'flags')
            need(offset == -(-end // 64) * 64 and not any(data[end:offset]), 'place of a section')
            end = offset + length
            need(kind in KINDS or flags == 1, 'unknown section')
            need(kind not in self.sections, 'section twice')
            self.sections[kind] = data[offset:end]
            if xxhash:
                need(xxhash.xxh3_64_intdigest(data[offset:end]) == signed, 'checksum of a section')
        need(end == size, 'end')

    def state(self):
        """Per layer: att shift, ffn shift, and the matrices as [head][value][key]."""
        number = {1: 'f', 2: 'e'}[self.state_type]
        values = [value for value, in struct.iter_unpack('<' + number, self.sections[2])]
        width, size = self.width, self.head_size
        layer_numbers = 2 * width + width * size
        assert len(values) == self.layers * layer_numbers
        assert all(math.isfinite(value) for value in values)
        for layer in range(self.layers):
            part = values[layer * layer_numbers:(layer + 1) * layer_numbers]
            matrices = part[2 * width:]
            yield (part[:width], part[width:2 * width],
                   [[[matrices[(head * size + key) * size + value] for key in range(size)] for value in range(size)]
                    for head in range(self.heads)])

    def logits(self):
        return struct.unpack(f'<{self.vocab_size}f', self.sections[5])

    def sampler(self):
        data, found, place = self.sections[3], {}, 0

        def take(form):
            nonlocal place
            values = struct.unpack_from('<' + form, data, place)
            place += struct.calcsize('<' + form)
            return values

        layout, found['is_greedy'] = take('II')
        assert layout == 1
        names = 'temperature top_p min_p typical_p repetition presence frequency penalty_decay'.split()
        found.update(zip(names, take('8d')))
        found['top_k'], found['ids_end'] = take('ii')
        found['random'] = take('4Q')
        found['biases'] = [take('if') for _ in range(*take('Q'))]
        for name in ('banned', 'exempt'):
            found[name] = [take('i')[0] for _ in range(*take('Q'))]
        found['counts'] = [take('id') for _ in range(*take('Q'))]
        assert place == len(data)
        return found


def number(index):
    """What the files' states and logits are made of."""
    return ((index * 2654435761 & (1 << 64) - 1) >> 7) % 2001 / 512 - 1000 / 512


def check_state(blob):
    index = 0
    for att_shift, ffn_shift, matrices in blob.state():
        flat = att_shift + ffn_shift + [value for head in matrices for row in head for value in row]
        for value in flat:
            assert value == number(index), (index, value, number(index))
            index += 1
    assert index == 2 * (2 * 32 + 32 * 16)


checked = 0
for name in ('v1_f32', 'v1_f16', 'v1_session', 'v1_generation'):
    blob = Blob((FOLDER / f'{name}.wkv').read_bytes())
    assert (blob.layers, blob.width, blob.heads, blob.head_size, blob.vocab_size) == (2, 32, 2, 16, 330)
    assert len(blob.last_tokens) == 16
    assert blob.state_type == (2 if name == 'v1_f16' else 1)
    assert set(blob.sections) == {'v1_session': {2, 3, 5}, 'v1_generation': {2, 3, 4}}.get(name, {2})
    if name == 'v1_generation':
        assert blob.position > 21
        list(blob.state())
    else:
        assert blob.position == 21
        check_state(blob)
    checked += 1
    if name == 'v1_session':
        assert list(blob.logits()) == [4 * number(index + 100000) for index in range(330)]
        sampler = blob.sampler()
        assert (sampler['temperature'], sampler['repetition'], sampler['ids_end']) == (1.25, 1.5, 320)
        assert sampler['biases'] == [(3, 0.5), (9, -math.inf)]
        assert sampler['banned'] == [17, 4] and sampler['exempt'] == [12, 44]
        assert sampler['counts'] and sorted(sampler['counts']) == sampler['counts']
print(f'{checked} blobs are what the specification says')
if not xxhash:
    print('skipped: checksums, as the Python module xxhash is not installed')
    sys.exit(0)
