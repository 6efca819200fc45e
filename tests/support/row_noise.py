#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what plain float32 arithmetic costs in each row of a golden case, so that tests can allow a multiple of it.

Usage: row_noise.py GOLDEN_DIRECTORY > tests/data/row_noise.json        (needs numpy)

fp32_noise.json of the golden set has one run in one order of summation, and its logits are those of the last token.
Early tokens can be much worse conditioned: the state is almost empty, and a group norm divides by a small deviation.
Here every case is run in float32 several times, each with its own order of summation (blocked, and one chain; inputs
permuted at random), and the largest error of each row is written. Nothing of the library is used.
"""
import json
import struct
import sys
from pathlib import Path

import numpy as np

F = np.float32
rng = np.random.default_rng(7)


def blocks(raw, size):
    return np.frombuffer(raw, np.uint8).reshape(-1, size)


def half(b):
    return b.copy().view('<f2').astype(np.float64)


def nibbles(q):
    return np.concatenate([q & 15, q >> 4], 1).astype(np.float64)


def high_bits(qh):
    bits = qh.copy().view('<u4')[:, 0]
    return ((bits[:, None] >> np.arange(32)) & 1).astype(np.float64) * 16


def dequantise(kind, raw):
    if kind == 0:
        return np.frombuffer(raw, '<f4').astype(np.float64)
    if kind == 1:
        return np.frombuffer(raw, '<f2').astype(np.float64)
    if kind == 30:
        return (np.frombuffer(raw, '<u2').astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if kind == 2:
        b = blocks(raw, 18)
        return ((nibbles(b[:, 2:]) - 8) * half(b[:, :2])).ravel()
    if kind == 3:
        b = blocks(raw, 20)
        return (nibbles(b[:, 4:]) * half(b[:, :2]) + half(b[:, 2:4])).ravel()
    if kind == 6:
        b = blocks(raw, 22)
        return ((nibbles(b[:, 6:]) + high_bits(b[:, 2:6]) - 16) * half(b[:, :2])).ravel()
    if kind == 7:
        b = blocks(raw, 24)
        return ((nibbles(b[:, 8:]) + high_bits(b[:, 4:8])) * half(b[:, :2]) + half(b[:, 2:4])).ravel()
    if kind == 8:
        b = blocks(raw, 34)
        return (b[:, 2:].copy().view(np.int8).astype(np.float64) * half(b[:, :2])).ravel()
    if kind == 12:
        b = blocks(raw, 144)
        d, dmin, s, q = half(b[:, :2]), half(b[:, 2:4]), b[:, 4:16].astype(int), b[:, 16:]
        out = np.empty((len(b), 8, 32))
        for j in range(8):
            if j < 4:
                scale, minimum = s[:, j] & 63, s[:, j + 4] & 63
            else:
                scale = (s[:, j + 4] & 15) | (s[:, j - 4] >> 6 << 4)
                minimum = (s[:, j + 4] >> 4) | (s[:, j] >> 6 << 4)
            part = q[:, 32 * (j // 2):32 * (j // 2) + 32]
            values = (part >> 4 if j % 2 else part & 15).astype(np.float64)
            out[:, j] = d * scale[:, None] * values - dmin * minimum[:, None]
        return out.ravel()
    if kind == 14:
        b = blocks(raw, 210)
        d, scales = half(b[:, 208:210]), b[:, 192:208].copy().view(np.int8).astype(np.float64)
        out = np.empty((len(b), 256))
        for h in range(2):
            ql, qh = b[:, 64 * h:64 * h + 64].astype(int), b[:, 128 + 32 * h:160 + 32 * h].astype(int)
            for part in range(4):
                low = ql[:, 32 * (part % 2):32 * (part % 2) + 32]
                value = (low >> 4 if part > 1 else low & 15) | ((qh >> (2 * part) & 3) << 4)
                scale = scales[:, 8 * h + 2 * part:8 * h + 2 * part + 2].repeat(16, 1)
                out[:, 128 * h + 32 * part:128 * h + 32 * part + 32] = d * scale * (value - 32)
        return out.ravel()
    raise ValueError(f'type {kind}')


SIZES = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
         12: (256, 144), 14: (256, 210)}


def read_gguf(path):
    data = path.read_bytes()
    at = 24
    tensors, keys = struct.unpack_from('<QQ', data, 8)

    def text():
        nonlocal at
        n = struct.unpack_from('<Q', data, at)[0]
        at += 8 + n
        return data[at - n:at].decode('utf-8', 'replace')

    def value(kind):
        nonlocal at
        if kind == 8:
            return text()
        if kind == 9:
            item, n = struct.unpack_from('<IQ', data, at)
            at += 12
            return [value(item) for _ in range(n)]
        form = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q', 12: 'd'}[kind]
        result = struct.unpack_from('<' + form, data, at)[0]
        at += struct.calcsize(form)
        return result

    alignment = 32
    for _ in range(keys):
        name = text()
        kind = struct.unpack_from('<I', data, at)[0]
        at += 4
        found = value(kind)
        if name == 'general.alignment':
            alignment = found
    infos = []
    for _ in range(tensors):
        name = text()
        rank = struct.unpack_from('<I', data, at)[0]
        extents = struct.unpack_from(f'<{rank}Q', data, at + 4)
        kind, offset = struct.unpack_from('<IQ', data, at + 4 + 8 * rank)
        at += 16 + 8 * rank
        infos.append((name, extents, kind, offset))
    start = (at + alignment - 1) // alignment * alignment
    weights = {}
    for name, extents, kind, offset in infos:
        count = int(np.prod(extents))
        values, size = SIZES[kind]
        raw = data[start + offset:start + offset + count // values * size]
        weights[name] = dequantise(kind, raw).astype(F).reshape(extents[::-1])
    return weights


class Run:
    """One float32 run of the model with its own order of summation."""

    def __init__(self, z, head_size, chain):
        self.z, self.N, self.chain = z, head_size, chain
        self.L = 0
        while f'blk.{self.L}.attn_norm.weight' in z:
            self.L += 1
        self.C = z['token_embd.weight'].shape[1]
        self.H = self.C // head_size
        self.orders = {}
        self.att = np.zeros((self.L, self.C), F)
        self.ffn = np.zeros((self.L, self.C), F)
        self.S = np.zeros((self.L, self.H, self.N, self.N), F)

    def total(self, products):
        return np.cumsum(products, axis=-1, dtype=F)[..., -1] if self.chain else products.sum(-1, dtype=F)

    def times(self, name, x):
        w = self.z[name]
        if name not in self.orders:
            order = rng.permutation(w.shape[1])
            self.orders[name] = order, np.ascontiguousarray(w[:, order])
        order, w = self.orders[name]
        return self.total(w * x[order]) if self.chain else w @ x[order]

    def norm(self, x, name, eps=F(1e-5)):
        mean = self.total(x) / F(x.shape[-1])
        centred = x - mean[..., None]
        variance = self.total(centred * centred) / F(x.shape[-1])
        y = centred / np.sqrt(variance + eps)[..., None]
        return y.reshape(-1) * self.z[name + '.weight'] + self.z[name + '.bias']

    def step(self, token):
        z, H, N = self.z, self.H, self.N
        sig = lambda v: F(1) / (F(1) + np.exp(-v))
        x = self.norm(z['token_embd.weight'][token], 'token_embd_norm')
        first = None
        for l in range(self.L):
            p = f'blk.{l}.'
            t = p + 'time_mix_'
            h = self.norm(x, p + 'attn_norm')
            mix = z[t + 'lerp_fused.weight'].reshape(6, -1)
            xr, xw, xk, xv, xa, xg = (h + (self.att[l] - h) * m for m in mix)
            self.att[l] = h
            low = lambda n, v, f=lambda u: u: self.times(t + n + '2.weight', f(self.times(t + n + '1.weight', v)))
            r, k, v = (self.times(t + n + '.weight', u) for n, u in (('receptance', xr), ('key', xk), ('value', xv)))
            w = np.exp(F(-np.exp(-0.5)) * sig(z[t + 'w0.weight'] + low('w', xw, np.tanh)))
            a = sig(z[t + 'a0.weight'] + low('a', xa))
            g = low('g', xg, sig)
            if l == 0:
                first = v
            else:
                v = v + (first - v) * sig(z[t + 'v0.weight'] + low('v', xv))
            kk = (k * z[t + 'k_k.weight']).reshape(H, N)
            kk = kk / np.maximum(np.sqrt(self.total(kk * kk)), F(1e-12))[:, None]
            k = k * (F(1) + (a - F(1)) * z[t + 'k_a.weight'])
            r, w, k, v, a = (u.reshape(H, N) for u in (r, w, k, v, a))
            S = self.S[l]
            removed = self.total(S * -kk[:, None, :])
            S = S * w[:, None, :] + removed[:, :, None] * (kk * a)[:, None, :] + v[:, :, None] * k[:, None, :]
            self.S[l] = S
            y = self.total(S * r[:, None, :])
            o = self.norm(y, t + 'ln', F(64e-5))
            bonus = self.total(r * k * z[t + 'r_k.weight'].reshape(H, N))
            o = o + (bonus[:, None] * v).reshape(-1)
            x = x + self.times(t + 'output.weight', o * g)
            h = self.norm(x, p + 'attn_norm_2')
            u = self.times(p + 'channel_mix_key.weight', h + (self.ffn[l] - h) * z[p + 'channel_mix_lerp_k.weight'])
            self.ffn[l] = h
            u = np.maximum(u, F(0))
            x = x + self.times(p + 'channel_mix_value.weight', u * u)
        return self.times('output.weight', self.norm(x, 'output_norm'))


def read_case(directory, name):
    meta = json.loads((directory / f'{name}.json').read_text())
    data = (directory / meta['bin']).read_bytes()
    return {a['name']: np.frombuffer(data, '<i4' if a['dtype'] == 'i32' else '<f4', int(np.prod(a['shape'])),
                                     a['offset']).reshape(a['shape']) for a in meta['arrays']}


def measure(weights, case, runs):
    noise = {'rows': np.zeros(len(case['tokens'])), 'att_shift': 0.0, 'ffn_shift': 0.0, 'wkv': 0.0}
    for i in range(runs):
        run = Run(weights, 64, i % 2 == 1)
        if 'init_wkv' in case:
            run.att, run.ffn, run.S = (case['init_' + n].copy() for n in ('att_shift', 'ffn_shift', 'wkv'))
        for t, token in enumerate(case['tokens']):
            error = np.abs(run.step(token).astype(np.float64) - case['logits_all'][t]).max()
            noise['rows'][t] = max(noise['rows'][t], error)
        if 'state_wkv' in case:
            for name, found in (('att_shift', run.att), ('ffn_shift', run.ffn), ('wkv', run.S)):
                noise[name] = max(noise[name], float(np.abs(found.astype(np.float64) - case['state_' + name]).max()))
    result = {'rows': [float(f'{v:.3g}') for v in noise['rows']]}
    if 'state_wkv' in case:
        result.update({n: float(f'{noise[n]:.3g}') for n in ('att_shift', 'ffn_shift', 'wkv')})
    return result


def main():
    golden = Path(sys.argv[1])
    out = {}
    for model in ('tiny', 'reverse', 'rnd_a', 'rnd_d'):
        directory = golden / model / 'golden'
        exact = read_gguf(golden / model / 'weights' / f'{model}.F32.gguf')
        for path in sorted(directory.glob('*.json')):
            name = path.stem
            if name in ('index', 'greedy_cases', 'tokenizer_cases'):
                continue
            case = read_case(directory, name)
            if 'logits_all' not in case:
                continue
            weights = exact
            if name.startswith('fmt_'):
                kind = name.split('_', 2)[2] if name.startswith('fmt_gguf') else ''
                file = golden / model / 'weights' / f'{model}.{kind}.gguf'
                if not kind or not file.exists():
                    continue
                weights = read_gguf(file)
            out[f'{model}/{name}'] = measure(weights, case, 12)
            print(model, name, max(out[f'{model}/{name}']['rows']), file=sys.stderr)
    text = ',\n'.join(f'  "{name}": {json.dumps(value)}' for name, value in out.items())
    print('{\n "what": "largest error of 12 plain float32 runs in random orders of summation; see tests/support/row_noise.py",')
    print(' "cases": {\n' + text + '\n }\n}')


if __name__ == '__main__':
    main()
