__version__ = "0.1.0"

import warnings
# Of fastai's own import under torch 2.15: nothing that its user could mend, and the first thing a notebook would show
warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning)
