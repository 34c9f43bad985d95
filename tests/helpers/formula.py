"Weights that a formula gives, so that a reference needs no stored checkpoint; the same as weights.py of the reference folder"
import re, zlib
import numpy as np

_class_bias = re.compile(r'cls[^.]*(\.\d+)?\.bias$')

def formula_value(key, shape):
    "The tensor `key` of that shape"
    random,n = np.random.RandomState(zlib.crc32(key.encode())),int(np.prod(shape, dtype=int))
    if key.endswith('running_mean'): values = .05*random.standard_normal(n)
    elif key.endswith('running_var'): values = random.uniform(.8, 1.2, n)
    elif len(shape)>=2: values = random.standard_normal(n)/np.sqrt(n/shape[0])
    elif key.endswith('bias'): values = .01*random.standard_normal(n)*(30 if _class_bias.search(key) else 1) - 3*bool(_class_bias.search(key))
    else: values = random.uniform(.8, 1.2, n)
    return values.reshape(shape).astype(np.float32)
