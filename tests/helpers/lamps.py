"What predicts at no cost: it finds lamps, bright squares on a dark scene, each with a brightness of its own, which is its score"
import os, signal
from pathlib import Path
import cv2, numpy as np, torch
from rotnb.data.images.rasters import image_size
from rotnb.predict.rows import rows_back, way_in
from rotnb.predict.sources import image_pixels

class Lamps:
    "Finds lamps, and can be made to fail"
    vocab,score_thr = ['lamp'],.05
    def __init__(self, weights='first', kill_at=None, once=None): # kill_at: x of a window whose process dies; once: file that says it did
        self.weights,self.kill_at,self.once,self.seen = weights,kill_at,once and Path(once),0
    def fingerprint(self): return dict(weights=self.weights)
    def __call__(self, *args, **kw): raise NotImplementedError
    def detect_rows(self, items, note, score_thr, bs=None, num_workers=None, progress=None, place=None, error=lambda item, e: e):
        for i,item in enumerate(items): note([(i, self.rows(item, score_thr, place, error))])

    def rows(self, item, score_thr, place, error):
        self.seen += 1
        if self.weights=='broken': raise ZeroDivisionError('of the model')
        if self.kill_at is not None and getattr(item, 'x', None)==self.kill_at: self.die()
        try: pixels = image_pixels(item)
        except Exception as e: raise error(item, e) from e
        n,_,stats,centres = cv2.connectedComponentsWithStats((pixels[...,0]>80).astype(np.uint8))
        rows = [[*centre+.5, *stat[2:4], 0., pixels[...,0][stat[1]:stat[1]+stat[3], stat[0]:stat[0]+stat[2]].max()/255, 0]
                for stat,centre in zip(stats[1:], centres[1:])]
        way = way_in(torch.eye(2,3), image_size(item), image_size(item))
        return rows_back(torch.tensor(rows).float().view(-1,7), way, place and place(item), score_thr)

    def die(self):
        if self.once:
            if self.once.exists(): return
            self.once.touch()
        os.kill(os.getpid(), signal.SIGKILL)

def lamp_scene(file, h, w, n, seed):
    "A scene with lamps apart from each other"
    rng,image,places = np.random.default_rng(seed),np.zeros((h,w,3), np.uint8),[]
    while len(places)<n:
        x,y,side = *(int(rng.integers(2, most-20)) for most in (w,h)),int(rng.integers(5, 16))
        if any(abs(x-px)<20 and abs(y-py)<20 for px,py in places): continue
        image[y:y+side,x:x+side] = 100+len(places)
        places.append((x,y))
    cv2.imwrite(str(file), image)
    return file

def lamp_scenes(folder):
    "Scenes of several sizes and kinds, one of which cannot be read"
    (folder/'deep').mkdir(parents=True)
    scenes = [('a.png',250,400,30), ('b.bmp',90,70,2), ('c.png',128,128,3), ('deep/a.jpg',300,130,9), ('e.png',64,64,0)]
    for i,(name,h,w,n) in enumerate(scenes):
        lamp_scene(folder/name, h, w, n, i)
    (folder/'no.png').write_bytes(b'no image')
    return folder
