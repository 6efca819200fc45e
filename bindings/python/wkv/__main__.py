# SPDX-License-Identifier: Apache-2.0
"""python -m wkv generate|chat|info|bench"""
from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, List, Optional

import wkv


def generate(arguments: argparse.Namespace) -> None:
    model = load(arguments)
    generation = model.generate(arguments.prompt, max_tokens=arguments.tokens, stop=arguments.stop, **sampling(arguments))
    print(arguments.prompt, end="")
    for piece in generation:
        print(piece, end="", flush=True)
    print()


def chat(arguments: argparse.Namespace) -> None:
    """One cache is the history. A session file keeps it, so that the conversation goes on another day."""
    model = load(arguments)
    sampler = wkv.Sampler(**sampling(arguments))
    cache = model.cache()
    if arguments.session and os.path.exists(arguments.session):
        session = model.load_session(arguments.session)
        cache, sampler = session.cache, session.sampler or sampler
    generation: Optional[wkv.Generation] = None
    while True:
        try:
            message = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            break
        begin = "" if cache.position == 0 else "\n\n"
        generation = model.generate(f"{begin}User: {message}\n\nAssistant:", cache=cache, sampler=sampler,
                                    max_tokens=arguments.tokens, stop=["\n\n", "\nUser:"],
                                    previous=generation)
        try:
            for piece in generation:
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            generation = None  # the answer ends here
        print()
        if arguments.session:
            wkv.Session(cache, sampler).save(arguments.session)


def info(arguments: argparse.Namespace) -> None:
    if arguments.model is None:
        for device in wkv.devices():
            print(f"{device.name}: {device.description or device.unusable_reason} ({device.kernels or 'not usable'})")
        return
    if not os.path.isdir(arguments.model):
        try:
            show(wkv.read_header(arguments.model))
            return
        except wkv.FormatError:
            pass  # no saved state, then a model
    with load(arguments) as model:
        show(model.info)


def bench(arguments: argparse.Namespace) -> None:
    model = load(arguments)
    print(model)
    tokens = [1 + i % (model.vocab_size - 1) for i in range(arguments.tokens)]
    cache = model.cache()
    cache.step(tokens[:16], logits=False)
    start = time.perf_counter()
    cache.step(tokens, logits=False)
    print(f"prefill {len(tokens)}: {len(tokens) / (time.perf_counter() - start):.1f} tokens/s")
    logits = cache.step(tokens[:1])
    start = time.perf_counter()
    for token in tokens:
        cache.step(token, logits)
    print(f"decode: {len(tokens) / (time.perf_counter() - start):.1f} tokens/s")


def show(tuple_: Any) -> None:
    for name, value in tuple_._asdict().items():
        print(f"{name:16} {value}")


def load(arguments: argparse.Namespace) -> wkv.Model:
    return wkv.Model(arguments.model, device=arguments.device, threads=arguments.threads,
                     weight_type=arguments.weight_type, progress=sys.stderr.isatty() or None)


def sampling(arguments: argparse.Namespace) -> Any:
    return {"temperature": arguments.temperature, "top_p": arguments.top_p, "seed": arguments.seed}


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m wkv", description="RWKV-7 language models")
    parser.add_argument("--version", action="version", version=wkv.__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(function: Any, help_: str, tokens: int = 0, has_text: bool = False) -> argparse.ArgumentParser:
        made = commands.add_parser(function.__name__, help=help_)
        made.set_defaults(function=function)
        made.add_argument("model", nargs="?" if function is info else None, help="a checkpoint")
        made.add_argument("--device", default="auto")
        made.add_argument("--threads", type=int, default=0)
        made.add_argument("--weight-type", choices=["f32", "f16", "bf16", "q8", "q4"])
        if tokens:
            made.add_argument("--tokens", type=int, default=tokens)
        if has_text:
            made.add_argument("--temperature", type=float, default=1.0)
            made.add_argument("--top-p", type=float, default=0.7)
            made.add_argument("--seed", type=int, default=0)
        return made

    made = command(generate, "continue a text", 256, True)
    made.add_argument("prompt")
    made.add_argument("--stop", action="append", default=[])
    command(chat, "talk with a model", 512, True).add_argument("--session", help="file that keeps the conversation")
    command(info, "describe a model, a saved state, or without an argument the devices")
    command(bench, "measure tokens/s", 256)
    chosen = parser.parse_args(arguments)
    try:
        chosen.function(chosen)
    except wkv.Error as error:
        print(f"wkv: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
