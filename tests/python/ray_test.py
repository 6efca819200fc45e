# SPDX-License-Identifier: Apache-2.0
"""The Ray example on a cluster of two nodes, which is started here and lives on this machine."""
import os
import subprocess
import sys
import unittest

import support
import wkv

try:
    import ray
    import ray.data  # needs more packages than ray
    from ray.cluster_utils import Cluster
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    ray = None

EXAMPLE = support.ROOT / 'examples/python/ray_batch.py'


@unittest.skipUnless(ray, 'Ray is not installed (pip install "ray[data]")')
class TwoNodes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # for this process and the nodes' workers
        sys.path.append(str(EXAMPLE.parent))
        os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [os.environ.get('PYTHONPATH'), str(EXAMPLE.parent)]))
        import ray_batch
        cls.example = ray_batch
        cls.cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1})
        cls.addClassCleanup(cls.cluster.shutdown)
        cls.cluster.add_node(num_cpus=1)
        cls.cluster.wait_for_nodes()
        model = wkv.Model(support.STORY_MODEL, device='cpu', reproducible=True)
        cls.texts = [model.generate(prompt, max_tokens=2 * cls.example.TOKENS, temperature=0.8, seed=i).text()
                     for i, prompt in enumerate(cls.example.PROMPTS)]

    def test_the_example_writes_what_one_model_writes_alone(self):
        done = subprocess.run([sys.executable, '-B', EXAMPLE], env={**os.environ, 'RAY_ADDRESS': self.cluster.address},
                              capture_output=True, text=True, encoding='utf-8', timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        *lines, last = done.stdout.strip().split('\n')
        self.assertEqual(lines, [' '.join((prompt + text).split())
                                 for prompt, text in zip(self.example.PROMPTS, self.texts)])
        self.assertEqual(last, '8 texts on 2 machines')

    def test_a_session_goes_on_on_the_other_node(self):
        import pyarrow
        ray.init(address=self.cluster.address, log_to_driver=False)
        self.addCleanup(ray.shutdown)
        rows = [self.example.new_row(i) for i in range(3)]
        table, nodes = pyarrow.Table.from_pylist(rows), [node['NodeID'] for node in ray.nodes()]
        self.assertEqual(len(nodes), 2)
        for node in nodes:
            writer = ray.remote(self.example.Writer).options(
                num_cpus=1, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote(str(support.STORY_MODEL), 1, 'cpu')
            table = ray.get(writer.__call__.remote(table))
        self.assertEqual([row['text'] for row in table.to_pylist()], self.texts[:3])
        self.assertEqual([row['nodes'] for row in table.to_pylist()], [nodes] * 3)


if __name__ == '__main__':
    support.main()
