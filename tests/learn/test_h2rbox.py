"Upright labels, as COCO and VOC have them, are all that it takes to train H2RBox"
import json, pytest, torch
from PIL import Image
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.learn.learner import rotated_learner


TINY = dict(backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1, strides=(8,16))
BOXES = [[10,12,50,30],[40,50,70,90]]     # x1 y1 x2 y2

def voc(root, n):
    (root/'JPEGImages').mkdir(parents=True); (root/'Annotations').mkdir()
    for i in range(n):
        Image.new('RGB', (96,96), (40*i,90,60)).save(root/f'JPEGImages/{i}.png')
        box = lambda b: ''.join(f'<{k}>{v}</{k}>' for k,v in zip(('xmin','ymin','xmax','ymax'), b))
        objs = ''.join(f'<object><name>{name}</name><difficult>0</difficult><bndbox>{box(b)}</bndbox></object>'
                       for name,b in zip(('ship','tank'), BOXES))
        size = '<size><width>96</width><height>96</height><depth>3</depth></size>'
        (root/f'Annotations/{i}.xml').write_text(f'<annotation><filename>{i}.png</filename>{size}{objs}</annotation>')
    return root

def coco(root, n):
    (root/'images').mkdir(parents=True)
    doc = dict(images=[], annotations=[], categories=[dict(id=1, name='ship'), dict(id=2, name='tank')])
    for i in range(n):
        Image.new('RGB', (96,96), (40*i,90,60)).save(root/f'images/{i}.png')
        doc['images'].append(dict(id=i, file_name=f'{i}.png', width=96, height=96))
        for cat,(x1,y1,x2,y2) in enumerate(BOXES, 1):
            doc['annotations'].append(dict(id=len(doc['annotations'])+1, image_id=i, category_id=cat, bbox=[x1,y1,x2-x1,y2-y1],
                                           area=(x2-x1)*(y2-y1), iscrowd=0))
    (root/'instances.json').write_text(json.dumps(doc))
    return root

@pytest.mark.parametrize('make,form,name', [(coco,'coco','h2rbox'), (voc,'voc','h2rbox_v2')])
def test_training_on_upright_sets(tmp_path, make, form, name):
    kw = dict(valid_pct=.34, group=None, bs=2, upright=True, num_workers=0)
    dls = RotatedDataLoaders.from_format(make(tmp_path/'set', 6), format=form, **kw)
    learn = rotated_learner(dls, name, pretrained=False, rotation_agnostic_classes=['tank'], run=False, metrics=[], **TINY)
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1, 1e-3)
    assert list(dls.vocab)==['ship','tank']==learn.model.vocab and torch.tensor(learn.recorder.values[-1]).isfinite().all()
    assert learn.predict(dls.valid.items[0].image).vocab==learn.model.vocab

def test_a_class_that_is_not_there(tmp_path):
    dls = RotatedDataLoaders.from_format(voc(tmp_path/'set', 4), format='voc', valid_pct=.5, group=None, bs=2, upright=True, num_workers=0)
    with pytest.raises(ValueError, match="unknown class 'plane'; the vocab is ship, tank"):
        rotated_learner(dls, 'h2rbox', pretrained=False, square_classes=['plane'], **TINY)
