"Pairs of boxes on which known operators fail"
import math, numpy as np
from rotnb.geometry.boxes import rbox2qbox

def quads(a, b): # about a's centre, in float64, or far boxes lose their digits
    a,b = (np.asarray(o, float) for o in (a, b))
    return rbox2qbox(np.r_[0,0,a[2:]]),rbox2qbox(np.r_[b[:2]-a[:2],b[2:]])

def stress(name, n=150):
    r = np.random.default_rng(sum(map(ord, name))); u = lambda *s: r.uniform(size=(n,5))*np.array(s)
    a = np.concatenate([r.uniform(0,800,(n,2)), r.uniform(4,120,(n,2)), r.uniform(-math.pi,math.pi,(n,1))], 1); b = a.copy()
    if name.startswith('near'): b *= 1+r.uniform(-1,1,(n,5))*float(name[5:])
    elif name=='w+1': b[:,2] += 1
    elif name=='swapped': b = a[:,[0,1,3,2,4]]; b[:,4] += math.pi/2
    elif name=='generic': b = a+r.normal(size=(n,5))*[15,15,8,8,1]; b[:,2:4] = np.abs(b[:,2:4])+1
    elif name=='far': a[:,:2] += r.uniform(2e4,5e4,(n,2)); b = a+r.normal(size=(n,5))*[9,9,0,0,1]
    elif name=='sliver': a[:,3] = a[:,2]/1000; b = a+r.normal(size=(n,5))*[.02,.02,0,0,.001]
    elif name=='tiny': a[:,2:4] = r.uniform(.01,.5,(n,2)); b = a+r.normal(size=(n,5))*[.05,.05,0,0,1]
    elif name=='normalised': a[:,:4] /= 1000; b = a+r.normal(size=(n,5))*[.01,.01,0,0,1]
    elif name=='shared':
        a = np.concatenate([r.integers(0,9,(n,2))*10, r.integers(1,5,(n,2))*10, r.integers(-4,5,(n,1))*math.pi/4], 1).astype(float)
        b = a.copy(); b[:,:2] += r.integers(-2,3,(n,2))*10; b[:,2:4] = r.integers(1,5,(n,2))*10; b[:,4] += r.integers(0,4,n)*math.pi/4
    elif name=='contained': b[:,2:4] *= r.uniform(.1,1,(n,2))
    elif name=='corner': b[:,:2] += np.stack([np.cos(a[:,4]),np.sin(a[:,4])],1)*a[:,2:3]
    elif name=='bad':
        for i in range(n): b[i,r.integers(0,5)] = [math.nan,math.inf,-math.inf][i%3]
        b[::5] = a[::5]; b[::5,2] = 0; b[1::5] = a[1::5]; b[1::5,3] = -4
    return a.astype(np.float32),b.astype(np.float32)

SETS = ['identical','near 1e-7','near 1e-6','near 1e-5','near 1e-4','near 1e-3','w+1','swapped','generic','far','sliver','tiny',
        'normalised','shared','contained','corner','bad']
