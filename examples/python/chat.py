# SPDX-License-Identifier: Apache-2.0
"""A conversation that goes on another day: chat.py [MODEL]. Its session is kept in chat.wkv."""
import os
import pathlib
import sys

import wkv

STORIES = pathlib.Path(__file__).parents[1] / "models/tales-8m.gguf"
model = wkv.Model(sys.argv[1] if len(sys.argv) > 1 else STORIES)

if os.path.exists("chat.wkv"):
    session = model.load_session("chat.wkv")
else:
    session = wkv.Session(model.cache(), wkv.Sampler(temperature=1.0, top_p=0.6))

for message in sys.stdin:
    # the stop string is taken back out of the cache, and the next message begins with it
    begin = "\n\n" if session.cache.position else ""
    answer = model.generate(f"{begin}User: {message.strip()}\n\nAssistant:", cache=session.cache,
                            sampler=session.sampler, max_tokens=60, stop=["\n\n"])
    for piece in answer:
        print(piece, end="", flush=True)
    print()
    session.save("chat.wkv")
