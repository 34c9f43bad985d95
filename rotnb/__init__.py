__version__ = "0.1.0"

import os, warnings
# OpenMP's threads wait for their next part by spinning, unless told otherwise before torch is loaded. Where another process has a core
# for a while, all others spin until the late one comes: a step of training took 6 to 20 times as long (nbs/benchmarks/step.py)
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
# Of fastai's own import under torch 2.15: nothing that its user could mend, and the first thing a notebook would show
warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning)
