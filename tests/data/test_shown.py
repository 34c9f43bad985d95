"Pictures of batches: names, grids, and images that are too dark to be looked at"
import cv2, matplotlib.pyplot as plt, numpy as np, pytest
from fastai.vision.all import DataBlock, RandomSplitter
from PIL import Image
from paths import SHARED
from rotnb.data.blocks import NamedImageBlock, RBoxBlock, RBoxLblBlock
from rotnb.data.images.rasters import read_rgb
from rotnb.data.images.windows import open_scene, shown_scene
from rotnb.data.labels.records import Annot
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.explore.pyramid import open_source
from rotnb.explore.thumbs import Thumbs
from rotnb.plot.draw import display_limits, draw, rgb8

def annots(folder, n=5, size_wh=(64,48), pixels=None):
    "Records of images with one box each"
    folder.mkdir(exist_ok=True)
    for i in range(n):
        px = np.full((*size_wh[::-1],3), 40+i, np.uint8) if pixels is None else pixels
        Image.fromarray(px).save(folder/f'image{i}.png')
    quads = np.array([[[10,10],[40,12],[39,30],[9,28]]], float)
    return [Annot(folder/f'image{i}.png', quads, ['ship'], np.zeros(1, int)) for i in range(n)]

def shown(func):
    "Titles of what is drawn, and the figure"
    plt.close('all'); func()
    fig = plt.gcf()
    return [ax.get_title() for ax in fig.axes if ax.images],fig

def loaders(records, **kw): return RotatedDataLoaders.from_annots(records, records, bs=len(records), device='cpu', shuffle=False, **kw)

@pytest.mark.parametrize('workers', [0,2])
def test_each_image_has_its_name(tmp_path, workers):
    dls = loaders(annots(tmp_path/'a'), num_workers=workers)
    names = [f'image{i}.png' for i in range(5)]
    for dl in dls:
        titles,fig = shown(dl.show_batch)
        assert titles==names and len(fig.axes)==6                          # a grid of 2 x 3
        assert shown(lambda: dl.show_batch(max_n=2))[0]==names[:2]
    plt.close('all')

@pytest.mark.parametrize('n,shape', [(1,(1,1)),(2,(1,2)),(3,(1,3)),(4,(2,2)),(5,(2,3)),(7,(2,4)),(9,(3,3))])
def test_grids_leave_no_holes(tmp_path, n, shape):
    titles,fig = shown(lambda: loaders(annots(tmp_path/'a', n)).show_batch(max_n=9))
    spec = fig.axes[0].get_subplotspec().get_gridspec()
    assert (spec.nrows,spec.ncols)==shape and len(titles)==n and fig.get_figwidth()<=10
    plt.close('all')

def test_windows_are_called_by_scene_and_place(tmp_path):
    records = annots(tmp_path/'a', 2, (96,64))
    titles,_ = shown(loaders(records, tile=dict(size=48, overlap=16, empty='keep')).valid.show_batch)
    assert titles[:2]==['image0 at 0, 0','image0 at 0, 16']
    plt.close('all')

def test_loaders_of_a_data_block_have_names_too(tmp_path):
    records = annots(tmp_path/'a', 4)
    by_name = {o.image.name:o for o in records}
    blocks = dict(blocks=(NamedImageBlock(), RBoxBlock(), RBoxLblBlock()), n_inp=1, splitter=RandomSplitter(.5, 0))
    ways = [dict(get_y=[lambda f: by_name[f.name].quads, lambda f: by_name[f.name].names]),
            dict(get_x=lambda o: o['file'], get_y=[lambda o: by_name[o['file'].name].quads, lambda o: by_name[o['file'].name].names])]
    for way,items in zip(ways, ([o.image for o in records], [dict(file=o.image) for o in records])):
        dls = DataBlock(**blocks, **way).dataloaders(items, bs=2, device='cpu', num_workers=0)
        assert set(shown(dls.valid.show_batch)[0])<={*by_name} and shown(dls.valid.show_batch)[0]
    arrays = DataBlock(**blocks, get_x=lambda o: np.array(Image.open(o.image)), get_y=[lambda o: o.quads, lambda o: o.names])
    dls = arrays.dataloaders(records, bs=2, device='cpu', num_workers=0)
    assert shown(dls.valid.show_batch)[0]==['','']                        # pixels have no name
    plt.close('all')

def test_long_names_lose_their_middle(tmp_path):
    record, = annots(tmp_path/'a', 1)
    long = tmp_path/'a'/f'P0003__{"x"*150}__end.png'
    record.image.rename(long); record.image = long
    (title,),fig = shown(loaders([record]*4).train.show_batch)[0][:1],plt.gcf()
    assert title.startswith('P0003') and title.endswith('end.png') and '…' in title and len(title)<80
    plt.close('all')

# ---- dark images ----

def radar(shape=(96,128), mean=12, seed=0):
    px = np.random.default_rng(seed).exponential(mean, shape).clip(0, 255).astype(np.uint8)
    return np.repeat(px[...,None], 3, -1)

def test_radar_is_seen_and_the_network_gets_it_as_it_is(tmp_path):
    dls = loaders(annots(tmp_path/'a', 4, (128,96), radar()), batch_tfms=[])
    x = dls.one_batch()[0]
    assert abs(float(x.mean())*255-radar().mean())<1                       # untouched
    _,fig = shown(dls.show_batch)
    assert np.asarray(fig.axes[0].images[0].get_array()).mean()>3*radar().mean()
    file = tmp_path/'a/image0.png'
    assert (read_rgb(file)==radar()).all()
    scene,plain = open_source(file)
    assert plain is None and scene.read(0, 0, 128, 96).mean()>3*radar().mean()
    for window in (None, (20,20,80,80)):
        jpeg,_ = Thumbs(lambda i: file)(0, window)
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1).mean()>3*radar().mean()
    assert draw(radar(), np.zeros((0,5))).mean()>3*radar().mean()
    plt.close('all')

def test_windows_of_a_scene_share_one_rule():
    px = radar((300,300)); px[:150] //= 3
    scene = shown_scene(open_scene(px))
    top,bottom = (scene.read(0, y, 300, 150).mean() for y in (0,150))
    assert bottom>2*top and (open_scene(px).read(0, 0, 300, 300)==px).all()

@pytest.mark.parametrize('name', ['dota','dior_r','hrsc','icdar2015_toy','dota8'])
def test_photographs_stay_as_they_are(name):
    if not (SHARED/'data'/name).is_dir(): pytest.skip('no sample')
    files = [o for o in sorted((SHARED/'data'/name).rglob('*.*')) if o.suffix.lower() in ('.jpg','.png','.bmp')][:12]
    for file in files:
        px = read_rgb(file)
        assert display_limits(px) is None, file
        assert np.array_equal(rgb8(px), px)

def test_most_of_ssdd_is_stretched():
    if not (SHARED/'data/ssdd').is_dir(): pytest.skip('no sample')
    files = sorted((SHARED/'data/ssdd').rglob('*.jpg'))[::40]
    assert sum(display_limits(read_rgb(file)) is not None for file in files)>len(files)/2

def test_other_depths_and_flat_images():
    deep = (np.arange(9600).reshape(96,100)*7).astype(np.uint16)
    assert rgb8(deep).min()==0 and rgb8(deep).max()==255 and rgb8(deep.astype(np.float32)).std()>60
    assert draw(deep, np.zeros((0,5))).std()>60
    for value in (0, 5, 30, 255):
        flat = np.full((8,8,3), value, np.uint8)
        assert np.array_equal(rgb8(flat), flat)
    torn = np.full((8,8), np.nan, np.float32); torn[0,0] = 1
    assert rgb8(torn).shape==(8,8,3)
    padded = np.pad(radar(), ((0,400),(0,400),(0,0)))
    assert np.abs(rgb8(padded)[:96,:128].astype(int)-rgb8(radar())).max()<=16
