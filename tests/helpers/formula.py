"Weights and images that a formula gives, as those of ../shared/oracle: no file has to hold them"
import re, zlib
import numpy as np

def formula_value(key, shape):
    "One parameter or buffer, from its name and shape"
    rng,n = np.random.RandomState(zlib.crc32(key.encode())),int(np.prod(shape))
    if key.endswith('num_batches_tracked'): return np.zeros(shape, np.int64)
    if key.endswith('running_mean'): values = .05*rng.standard_normal(n)
    elif len(shape)>=2: values = rng.standard_normal(n)/np.sqrt(n/shape[0])
    elif key.endswith('bias'):
        values = .01*rng.standard_normal(n)
        if re.search(r'cls[^.]*(\.\d+)?\.bias$', key): values = 30*values-3      # classes are rare
    else: values = rng.uniform(.8, 1.2, n)
    return values.reshape(shape).astype(np.float32)

def formula_weights(shapes): # {name: shape}
    "A state dict of arrays"
    return {key:formula_value(key, tuple(shape)) for key,shape in shapes.items()}

def formula_image(size, n=1): # (n,3,size,size), normalised
    "Images of noise"
    return np.random.RandomState(20240).standard_normal((n,3,size,size)).astype(np.float32)

def detector_value(key, shape):
    "The same for a whole detector, whose first answers are boxes of some size, so that losses have something to compare"
    key = key.replace('._mean', '.running_mean').replace('._variance', '.running_var')                   # Paddle's names
    key = re.sub(r'(bbox_head\.(?:head_module\.)?(?:cls|reg)_convs)\.\d(\.\d\.conv\.)', r'\1.0\2', key)   # RTMDet's levels share these
    value = formula_value(key, shape)
    if value.ndim==1 and re.search(r'rbr_\w+\.(bn\.)?weight$', key): value *= np.float32(.65)      # three branches add up
    sides = re.search(r'(reg_preds|conv_reg|rtm_reg|pred_reg)\.\d(\.2)?\.bias$', key) and len(value)==4
    if sides: value += [0,0,1,1] if 'conv_reg' in key else 2
    return value
