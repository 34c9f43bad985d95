"""Weights of the YOLO family: whole nets, filled with formula weights under the names of another package, answer and lose what that
package does (tests/helpers/peer_heads.py made the numbers)"""
import json, pickle
from contextlib import nullcontext
from pathlib import Path
import numpy as np, pytest, torch
from formula import detector_value, formula_image
from paths import ROOT
from rotnb.geometry.boxes import canonicalize, hbox2rbox
from rotnb.interop.export_module import ExportModule
from rotnb.interop.mmrotate import KeysError
from rotnb.interop.yolo_files import detector_from_yolo
from rotnb.models.files import UnsafeFile, WeightsError, load_tensors
from rotnb.predict.load import detector_from_weights, load_weights
from rotnb.predict.predictor import Predictor

DATA = ROOT/'tests/interop/data/yolo'
OBJECTS = [[(3,11,13,71,61), (17,60,40,124,118)], [(3,20,64,100,120)]]   # class, corners
TARGETS = [dict(boxes=hbox2rbox(torch.tensor([row[1:] for row in rows]).float(), 'hbb'), labels=torch.tensor([row[0] for row in rows]))
           for rows in OBJECTS]

def shapes_of(theirs):
    "Keys and shapes of the other package's net"
    for line in str(theirs['keys']).split('\n'):
        key,_,shape = line.partition(' ')
        yield key,tuple(map(int, shape.split('x'))) if shape else ()

def formula_net(name, **kw):
    theirs = np.load(DATA/f'{name}.npz')
    with pytest.warns(match='GPL-3.0') if name.startswith(('mmyolo','ultralytics')) else nullcontext():
        model = detector_from_yolo({key:torch.tensor(detector_value(key, shape)) for key,shape in shapes_of(theirs)}, **kw)
    return theirs,model

def thin(tensor):
    flat = tensor.detach().flatten()
    return flat[::max(1, -(-len(flat)//60))].numpy()

def maps_of(head, i, feat):
    "Classes, boxes and objectness of a level; of a head with layers of their own for the angle, classes, sides and angle"
    cls,box,quality,*_ = head.forward_level(i, feat)
    return (cls,*box.split([head.coder.split,head.coder.angle_coder.n], 1)) if head.own_angle else (cls,box,quality)

NETS = sorted(file.stem for file in DATA.glob('*.npz'))
TERMS = dict(loss_cls='loss_cls', loss_bbox='loss_box', loss_mask='loss_mask', loss_obj='loss_quality', loss_dfl='loss_sides')
# how many times ours theirs are: YOLOv5, YOLOv7 and YOLOv8 add up the images of a batch
LOSSES = dict(mmdet_yolox_tiny=1, mmyolo_yolox_tiny=1, mmyolo_ppyoloe_plus_s=1, mmdet_rtmdet_tiny=1, mmdet_rtmdet_ins_tiny=1,
              mmyolo_rtmdet_tiny=1, mmyolo_yolov5_n=2, mmyolo_yolov8_n=2, mmyolo_yolov7_tiny=2, mmyolo_yolov6_n=1, mmyolo_yolov6_v3_n=1,
              mmyolo_yolov6_v3_m=1, mmyolo_yolov5_n6=2)

@pytest.fixture(scope='module', params=NETS)
def net(request):
    "Name, the other package's numbers, ours: the stage, its `StageOut`, and maps of each level"
    theirs,model = formula_net(request.param)
    with torch.no_grad():
        feats = model.neck(model.backbone(torch.tensor(formula_image(128, 2))))
        head = model.stages[0]
        return request.param,theirs,head,head(feats),[maps_of(head, i, feat) for i,feat in enumerate(feats)]

def test_outputs_are_those_of_the_other_package(net):
    "Classes, boxes (in pixels where theirs are) and objectness, to a ten-thousandth of the largest"
    name,theirs,_,_,raw = net
    compared = 0
    for level,maps in enumerate(raw):
        for i,part in enumerate(maps):
            if f'{i}/{level}' not in theirs or part is None or len(theirs[f'{i}/{level}'])!=len(thin(part)): continue
            want = theirs[f'{i}/{level}']/((8,16,32)[level] if i==1 and name.startswith('mmdet_rtmdet') else 1)
            off = np.abs(thin(part)-want).max()/np.abs(want).max()
            assert off<1e-4, (name, i, level, off)
            compared += 1
    assert compared>=3

def test_losses_are_those_of_the_other_package(net):
    name,theirs,head,out,_ = net
    if name not in LOSSES: pytest.skip('outputs alone are compared')
    targets = [dict(one, outlines=squares(rows)) for one,rows in zip(TARGETS, OBJECTS)] if head.masks else TARGETS
    with torch.no_grad(): ours = {term:value.mean().item() for term,value in head.loss(out, targets).items()}
    for term,value in json.loads(str(theirs['losses'])).items():
        assert value>0 and abs(ours[TERMS[term]]*LOSSES[name]-value)<=1e-3*value, (name, term, ours, value)

def squares(rows):
    "Outlines between cells of 4 px, for which it does not matter how a mask is sampled"
    lows = ([at//4*4 for at in corners] for _,*corners in rows)
    return torch.tensor([[(x0,y0),(x1,y0),(x1,y1),(x0,y1)] for x0,y0,x1,y1 in lows]).float()

def test_masks_are_those_of_the_other_package():
    "What priors write, and what their networks read"
    theirs,model = formula_net('mmdet_rtmdet_ins_tiny')
    with torch.no_grad():
        levels = model.neck(model.backbone(torch.tensor(formula_image(128, 2))))
        masks = model.stages[0].masks
        written = [conv(masks.tower(i, level)) for i,(conv,level) in enumerate(zip(masks.write, levels))]
        _,(seen,) = masks(levels)
    for at,parts in {2:written, 3:seen}.items():
        for i,part in enumerate(parts):
            want = theirs[f'{at}/{i}']
            assert np.abs(thin(part)-want).max()<1e-4*np.abs(want).max()

def test_oriented_boxes_are_those_of_the_other_package():
    "Sides and angle of YOLOv8-OBB, decoded"
    theirs,model = formula_net('ultralytics_yolov8n_obb')
    assert model.angle=='le135' and model.name=='yolov8_n'
    with torch.no_grad():
        out = model.stages[0](model.neck(model.backbone(torch.tensor(formula_image(128, 2)))))
        ours = model.stages[0].coder.decode(out.priors.flatten(0,1), out.deltas.flatten(0,1)).unflatten(0, out.priors.shape[:2])[:,::7]
    want = canonicalize(torch.tensor(theirs['boxes']).flatten(0,1), 'le135').view_as(ours)
    assert (ours-want).abs().max()<1e-3 and want[...,2].max()>20

# --- names

ROW5 = {'stem':0, **{f'stage{i+1}.{j}':1+2*i+j for i in range(4) for j in range(2)}, 'stage4.2':9}
NECK5 = {'reduce_layers.2':10, 'top_down_layers.0.0':13, 'top_down_layers.0.1':14, 'top_down_layers.1':17, 'downsample_layers.0':18,
         'bottom_up_layers.0':20, 'downsample_layers.1':21, 'bottom_up_layers.1':23}
ROW6 = ROW5|{'stage5.0':9, 'stage5.1':10, 'stage5.2':11}
NECK6 = {'reduce_layers.3':12, 'top_down_layers.0.0':15, 'top_down_layers.0.1':16, 'top_down_layers.1.0':19, 'top_down_layers.1.1':20,
         'top_down_layers.2':23, 'downsample_layers.0':24, 'bottom_up_layers.0':26, 'downsample_layers.1':27, 'bottom_up_layers.1':29,
         'downsample_layers.2':30, 'bottom_up_layers.2':32}

def in_a_row(sd, body, neck, last):
    "MMYOLO's names of YOLOv5 as Ultralytics counts its layers"
    new = {}
    for key,tensor in sd.items():
        part,rest = key.split('.', 1)
        for name,number in dict(backbone=body, neck=neck, bbox_head={'head_module.convs_pred':last})[part].items():
            if not rest.startswith(name+'.'): continue
            rest = rest[len(name):].replace('convs_pred', 'm').replace('blocks', 'm')
            for ours,layer in dict(main_conv='cv1', short_conv='cv2', final_conv='cv3', conv1='cv1', conv2='cv2').items():
                rest = rest.replace(f'.{ours}.', f'.{layer}.')
            new[f"model.{number}{'.m' if part=='bbox_head' else ''}{rest}"] = tensor
    assert len(new)==len(sd)
    return new

@pytest.mark.parametrize('name,body,neck,last', [('yolov5_n',ROW5,NECK5,24),('yolov5_n6',ROW6,NECK6,33)])
def test_yolov5_keeps_its_anchors_in_the_file(name, body, neck, last):
    "In strides; two for each location instead of three too"
    theirs = np.load(DATA/f'mmyolo_{name}.npz')
    sd = {key:torch.tensor(detector_value(key, shape)) for key,shape in shapes_of(theirs)}
    levels,shapes = len({key for key in sd if 'convs_pred' in key})//2,torch.rand(4, 2, 2)+1
    cut = {key:tensor[:170] if 'convs_pred' in key else tensor for key,tensor in sd.items()}
    with pytest.warns(match='AGPL-3.0'):
        model = detector_from_yolo(in_a_row(cut, body, neck, last)|{f'model.{last}.anchors':shapes[:levels]})
    stage = model.stages[0]
    assert (model.name,stage.n,model.n_classes)==(name,2,80)
    for level,stride in enumerate(stage.strides): assert torch.allclose(stage.priors.sizes(stride), shapes[level]*stride)
    with pytest.warns(match='GPL-3.0'): published = detector_from_yolo(sd)
    assert published.stages[0].n==3
    for ours,same in zip(model.neck.parameters(), published.neck.parameters()): assert torch.equal(ours, same)

def test_yolo11_is_refused_by_name():
    with pytest.raises(WeightsError, match='YOLO11.*AGPL'): detector_from_yolo({'model.23.cv3.0.0.0.conv.weight':torch.zeros(8,1,3,3)})

# --- files

def test_arrays_of_paddle_are_opened_and_nothing_else(tmp_path):
    file = tmp_path/'a.pdparams'
    for protocol in (2,4):
        file.write_bytes(pickle.dumps({'w':np.ones((2,3), np.float32), 'StructuredToParameterName@@':{'w':'w_0'}}, protocol))
        assert {key:tuple(tensor.shape) for key,tensor in load_tensors(file).items()}=={'w':(2,3)}
    file.write_bytes(pickle.dumps(dict(w=np.ones(2), bad=Path('a'))))
    with pytest.raises(UnsafeFile, match='pathlib'): load_tensors(file)
    file.write_bytes(b'no pickle')
    with pytest.raises(WeightsError, match='no pickle of arrays'): load_tensors(file)

def test_a_pickled_module_is_refused_with_what_to_do(tmp_path):
    torch.save(dict(model=Ridge(), epoch=3), tmp_path/'yolo.pt')
    with pytest.raises(WeightsError, match=r'pickled .*Ridge.*state_dict'): detector_from_yolo(tmp_path/'yolo.pt')

class Ridge: "Of no package that torch would load"

def test_missing_and_left_over_keys_are_named():
    theirs = np.load(DATA/'mmdet_yolox_tiny.npz')
    sd = {key:torch.zeros(shape) for key,shape in shapes_of(theirs)}
    sd['neck.more.weight'] = sd.pop('neck.out_convs.1.conv.weight')
    with pytest.raises(KeysError, match=r'(?s)neck.out_convs.1.conv.weight.*neck.more.weight'): detector_from_yolo(sd)

def test_upright_weights_answer_and_are_a_start(tmp_path, capsys):
    theirs = np.load(DATA/'mmdet_yolox_tiny.npz')
    sd = {key:torch.tensor(detector_value(key, shape)) for key,shape in shapes_of(theirs)}
    torch.save(dict(state_dict=sd, meta=dict(dataset_meta=dict(classes=[f'c{i}' for i in range(80)]))), tmp_path/'yolox.pth')
    found = load_weights(tmp_path/'yolox.pth')
    assert found.detector.angle=='hbb' and found.detector.channels=='bgr' and found.vocab[3]=='c3'
    start = detector_from_weights(tmp_path/'yolox.pth', ['ship','c3'])
    assert start.angle=='le90' and start.n_classes==2 and 'upright boxes; new in it: the classes and the angle' in capsys.readouterr().out
    own,box = start.state_dict(),sd['bbox_head.multi_level_conv_reg.0.weight']
    assert torch.equal(own['stages.0.box.0.weight'][:4], box) and len(own['stages.0.box.0.weight'])>4

IMAGENET = (123.675,116.28,103.53),(58.395,57.12,57.375)
# mean and deviation of pixels of 0 to 255, red first, as the configurations publish them, and the order in which a net sees colours
COLOURS = dict(mmdet_yolox_tiny=((0,)*3,(1,)*3,'bgr'), mmyolo_yolox_tiny=((0,)*3,(1,)*3,'bgr'), mmdet_rtmdet_tiny=(*IMAGENET,'bgr'),
               mmdet_rtmdet_ins_tiny=(*IMAGENET,'bgr'),
               mmyolo_rtmdet_tiny=(*IMAGENET,'bgr'), paddle_ppyoloe_r_s=None)

@pytest.mark.parametrize('name', [name for name in NETS if COLOURS.get(name, ())is not None])
def test_images_are_shown_as_published(name):
    "What a predictor hands to the network of a picture"
    _,model = formula_net(name)
    mean,std,order = COLOURS.get(name, ((0,)*3,(255,)*3,'rgb'))
    image = torch.arange(3*64*64).reshape(1,3,64,64)%256
    want = (image-torch.tensor(mean)[:,None,None])/torch.tensor(std)[:,None,None]
    seen = ExportModule(Predictor(model, size=64)).normalised(image)
    assert torch.allclose(seen[...,:64,:64], want.flip(1) if order=='bgr' else want, rtol=1e-4, atol=1e-4)

def test_a_file_of_rtmdet_ins_answers_with_masks(tmp_path):
    theirs,_ = formula_net('mmdet_rtmdet_ins_tiny')
    torch.save({'state_dict':{key:torch.tensor(detector_value(key, shape)) for key,shape in shapes_of(theirs)}}, tmp_path/'ins.pth')
    image,predictor = torch.randint(256, (96,128,3)).byte().numpy(),Predictor(tmp_path/'ins.pth', size=128, score_thr=0.)
    found = predictor(image)
    assert predictor.detector.name=='rtmdet_ins_tiny' and len(found) and found.masks.shape==(len(found),56,56)
