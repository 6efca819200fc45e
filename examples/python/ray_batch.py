# SPDX-License-Identifier: Apache-2.0
"""Many texts on many machines: ray_batch.py [MODEL] [--actors N] [--cpus N | --gpus N]. Needs Ray: pip install "ray[data]"

Each actor holds a model and steps the texts of a batch together. They are written in two parts: what an actor has to know
to go on is in the row, as a blob of half a megabyte, so that another one on another machine can write the rest.
"""
import argparse
import pathlib

import pyarrow
import ray
import wkv

STORIES = pathlib.Path(__file__).resolve().parents[1] / "models/tales-8m.gguf"
PROMPTS = ["There was a king", "A fox met a hare in the wood", "Once upon a time", "The youngest son",
           "In the middle of the forest", "An old woman", "The wolf said", "Far away by the sea"]
TOKENS = 30  # of a part
END = 0  # the token that ends a text


def new_row(number):
    """A text that nobody has begun to write."""
    return {"id": number, "prompt": PROMPTS[number], "text": "", "session": b"", "unread": [], "tokens": [], "nodes": []}


class Writer:
    """What runs in an actor. Ray makes it once, and calls it with table after table."""

    def __init__(self, path, threads, device):
        # reproducible: a text does not depend on the rows that happen to share its batch
        self.model = wkv.Model(path, threads=threads, device=device, reproducible=True)

    def __call__(self, table):
        rows = table.to_pylist()
        for row in rows:
            if row["session"]:
                row["session"] = self.model.session_from_bytes(row["session"])
            else:
                row["session"] = wkv.Session(self.model.cache(), wkv.Sampler(temperature=0.8, seed=row["id"]))
                row["unread"] = self.model.tokenizer.encode(row["prompt"])
            row["nodes"] += [ray.get_runtime_context().get_node_id()]
        for _ in range(TOKENS):
            going = [row for row in rows if row["tokens"][-1:] != [END]]
            chosen = self.model.step([(row["session"].cache, row["unread"]) for row in going],
                                     samplers=[row["session"].sampler for row in going])
            for row, token in zip(going, chosen):
                row["tokens"] += [token]
                row["unread"] = [token]  # chosen, and not yet read by the cache
        for row in rows:
            row["session"] = row["session"].to_bytes()
            tokens = row["tokens"][:-1] if row["tokens"][-1:] == [END] else row["tokens"]
            row["text"] = self.model.tokenizer.decode(tokens)
        return pyarrow.Table.from_pylist(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(STORIES), help="a path that every machine can read")
    parser.add_argument("--actors", type=int, default=2, help="models in the cluster")
    parser.add_argument("--cpus", type=int, default=1, help="CPUs and threads of each")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of each")
    parser.add_argument("--batch", type=int, default=4, help="texts that an actor writes together")
    arguments = parser.parse_args()

    ray.init(log_to_driver=False)  # the cluster that RAY_ADDRESS names; without one, this machine
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.wait_for_min_actors_s = 600  # this list is short: the first actor would be through before the next one starts
    rows = [new_row(number) for number in range(len(PROMPTS))]
    texts = ray.data.from_items(rows, override_num_blocks=max(arguments.actors, len(rows) // arguments.batch))
    for _ in range(2):
        # sessions lie in the cluster's object store between the parts; write_parquet would keep them for another day
        texts = texts.map_batches(
            Writer, fn_constructor_args=(arguments.model, arguments.cpus, "cuda" if arguments.gpus else "cpu"),
            batch_format="pyarrow", batch_size=arguments.batch, num_cpus=arguments.cpus, num_gpus=arguments.gpus,
            compute=ray.data.ActorPoolStrategy(size=arguments.actors, max_tasks_in_flight_per_actor=1)).materialize()

    nodes = set()
    for row in sorted(texts.take_all(), key=lambda row: row["id"]):
        nodes.update(row["nodes"])
        print(" ".join((row["prompt"] + row["text"]).split()))
    print(f"{len(PROMPTS)} texts on {len(nodes)} machines")


if __name__ == "__main__":
    main()
