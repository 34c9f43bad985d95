"Boxes as pixels: masks, images whose boxes are known, and sets of them"
import math
import cv2, numpy as np
from PIL import Image
from fastai.vision.all import PILImage
from rotnb.data.labels.records import Annot
from rotnb.data.types import TensorBoxLabel, TensorQuad
from rotnb.geometry.boxes import rbox2qbox

def mask(quad, w, h, ss=8):
    "Pixels of a `w` x `h` image at least half inside `quad`, by `ss`-fold supersampling"
    big = np.zeros((h*ss, w*ss), np.uint8)
    cv2.fillConvexPoly(big, np.round((np.asarray(quad, float)*ss-.5)*16).astype(np.int32), 255, shift=4)
    return cv2.resize(big, (w,h), interpolation=cv2.INTER_AREA)

def scene(rng, w, h, label=0, front=False, value=255):
    "A black image with one large bright box, or the front half of it"
    a,b,t = rng.uniform(90,140),rng.uniform(70,120),rng.uniform(-math.pi,math.pi)
    q = rbox2qbox(np.array([[w/2+rng.uniform(-40,40), h/2+rng.uniform(-40,40), a, b, t]]))
    pixels = (mask(front_half(q[0]) if front else q[0], w, h)*(value/255)).round().astype(np.uint8)
    return PILImage.create(np.repeat(pixels[...,None], 3, -1)),TensorQuad.create(q),TensorBoxLabel([label])

def front_half(q): return np.stack([(q[0]+q[1])/2, q[1], q[2], (q[2]+q[3])/2])

def soft_iou(a, b):
    a,b = np.asarray(a, np.float64)/255,np.asarray(b, np.float64)/255
    return np.minimum(a, b).sum()/max(np.maximum(a, b).sum(), 1e-9)

COLOURS = np.array([[1,0,0],[0,1,0],[0,0,1],[1,1,0]], bool)
def tinted(s, colour): return PILImage.create(np.asarray(s[0])*colour.astype(np.uint8)),*s[1:]

def write(root, n, size=(96,64)):
    "Images of noise with up to three boxes each, some difficult; their records"
    rng,res = np.random.default_rng(0),[]
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (size[1],size[0],3)).astype(np.uint8)).save(root/f'{i}.png')
        k = i%4                                                            # some are empty
        q = rbox2qbox(np.stack([rng.uniform(10,size[0]-10,k), rng.uniform(10,size[1]-10,k), rng.uniform(8,30,k), rng.uniform(6,12,k),
                                rng.uniform(-2,2,k)], 1).reshape(-1,5))
        res.append(Annot(root/f'{i}.png', q, [['car','ship'][(i+j)%2] for j in range(k)], np.arange(k)%2))
    return res

def check_pixels(im, quads, labels):
    "Objects of an image that is made of `tinted` ones lie in boxes of their classes, and boxes have pixels of theirs"
    (w,h),bright = im.size,np.asarray(im)>127
    for i,colour in enumerate(COLOURS):
        own,where = (bright==colour).all(-1),np.zeros(bright.shape[:2], bool)
        for quad,label in zip(quads, labels):
            if label==i: where |= mask(quad, w, h)>0
        if own.sum()>200: assert where[own].mean()>.98
    for quad,label in zip(quads, labels):
        inside = mask(quad, w, h)>127
        if inside.sum()>400: assert (bright[inside]==COLOURS[label]).all(-1).mean()>.3
