"A crop shows exactly its box, upright"
import numpy as np
from rotnb.data.blocks import open_image
from rotnb.data.crops import crops
from rotnb.data.images.windows import open_scene
from photos import BOX, shown, photo

def test_a_crop_is_exactly_its_box():
    "Analytic image: colours are coordinates"
    rng = np.random.default_rng(0); y,x = np.mgrid[:250,:250]; im = np.stack([x,y,0*x], -1).astype(np.uint8)
    b = np.c_[rng.uniform(80, 170, (40,2)),rng.uniform(3, 70, (40,2)),rng.uniform(-7, 7, 40)]
    for c,(cx,cy,w,h,t) in zip(crops(im, b), b):
        H,W = c.shape[:2]; assert (W,H)==(max(1, round(w)),max(1, round(h)))
        v,u = np.mgrid[:H,:W]+.5; u,v = u*w/W-w/2,v*h/H-h/2
        assert np.abs(c[...,0]-(cx+u*np.cos(t)-v*np.sin(t)-.5)).max()<.52 and np.abs(c[...,1]-(cy+u*np.sin(t)+v*np.cos(t)-.5)).max()<.52

def test_crops_of_files_scenes_and_turned_photos(tmp_path):
    photo(tmp_path/'a.jpg', 6); q = BOX[None]
    for o in (tmp_path/'a.jpg', open_scene(tmp_path/'a.jpg'), open_image(tmp_path/'a.jpg'), shown()):
        c, = crops(o, q); assert c.shape[:2]==(21,41) and c[3:-3,3:-3].min()>200
    assert [o.shape for o in crops(shown(), np.concatenate([q,q]), size_wh=(32,16))]==[(16,32,3)]*2
