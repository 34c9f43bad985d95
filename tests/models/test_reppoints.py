"Sets of points: what is assigned and lost against plain loops, and MMRotate's weights against its network written out once more"
import math
import pytest, torch
import torch.nn.functional as F
from torch import tensor
from reference import checkpoint, close, needs_oracle, oracle_files, quietly
from rotnb.geometry.boxes import rbox2hbox, rbox2qbox
from rotnb.interop.mmconfig import ConfigError, settings_from_config
from rotnb.interop.mmrotate import KeysError, load_mmrotate
from rotnb.losses.points import convex_giou_loss
from rotnb.models import create_detector
from rotnb.models.cfa import cfa_choose
from rotnb.models.reppoints import Matches, RepPointsHead
from rotnb.ops.convex import convex_iou
from rotnb.targets.assign import IGN, NEG, max_iou_assign, nearest_assign
from rotnb.targets.priors import PointPriors, level_priors

STRIDES = (8,16,32)

def scene(seed, n):
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 5, generator=g)
    return torch.cat([u[:,:2]*128, 4*32**u[:,2:4], u[:,4:]*math.pi-math.pi/2], 1)

def locations(): return level_priors(PointPriors(0.), [(128//s,128//s) for s in STRIDES], STRIDES)

# assignment

@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('topk', [1,3])
def test_nearest_against_loops(seed, topk):
    "The published rule, object by object"
    boxes,(pri,_) = scene(seed, 12),locations()
    held = {}
    for j,(x1,y1,x2,y2) in enumerate(rbox2hbox(boxes).tolist()):
        w,h = x2-x1,y2-y1
        lvl = min(max(int((math.log2(w/4)+math.log2(h/4))/2), 3), 5)
        d = [(math.hypot((x-(x1+x2)/2)/w, (y-(y1+y2)/2)/h) if s==2**lvl else math.inf, i) for i,(x,y,s) in enumerate(pri[:,:3].tolist())]
        for v,i in sorted(d)[:topk]:
            if v<held.get(i, (math.inf,))[0]: held[i] = v,j
    want = [held[i][1] if i in held else NEG for i in range(len(pri))]
    assert nearest_assign(pri, boxes, topk=topk).tolist()==want

@pytest.mark.parametrize('seed', range(4))
def test_point_sets_by_overlap_against_loops(seed):
    g = torch.Generator().manual_seed(seed)
    boxes,(pri,lvls) = scene(seed, 6),locations()
    pts = pri[:,None,:2] + torch.randn(len(pri), 9, 2, generator=g)*pri[:,None,2:3]
    iou = convex_iou(pts, rbox2qbox(boxes)).T
    want = torch.full((len(pri),), NEG)
    for i in range(len(pri)):
        best,j = iou[:,i].max(0)
        want[i] = j if best>=.4 else IGN if best>=.3 else NEG
    for j in range(len(boxes)): want[iou[j].argmax()] = j
    got = max_iou_assign(pri, boxes, None, lvls, pos=.4, neg=.3, points=pts)
    assert (got>=0).sum()>3 and got.tolist()==want.tolist()
    got = max_iou_assign(pri, boxes, torch.ones(6, dtype=torch.bool), lvls, points=pts)
    assert set(got.tolist())<={NEG,IGN} and (got==IGN).any(), 'locations in ignored objects are undecided'

# losses

def test_losses_against_loops():
    torch.manual_seed(0)
    head = RepPointsHead(3, 8, feat_channels=8, stacked_convs=1, strides=STRIDES)
    torch.nn.init.normal_(head.first.bias, std=2.)
    out = head([torch.randn(2,8,128//s,128//s) for s in STRIDES])
    targets = [dict(boxes=scene(i, n), labels=torch.arange(n)%3) for i,n in enumerate((7,3))]
    near,matched = head.assign(out, targets)
    got = head.loss(out, targets)
    sets = head.coder.points(out.priors, out.deltas)
    for name,which,m,weight in (('first',0,near,.375), ('box',1,matched,1.)):
        lvl_means = []
        for l in range(len(STRIDES)):
            v = [convex_giou_loss(sets[which][b,i][None], rbox2qbox(targets[b]['boxes'][m[b,i]][None])) for b in range(2)
                 for i in range(m.shape[1]) if m[b,i]>=0 and out.lvls[i]==l]
            if v: lvl_means.append(torch.cat(v).mean())
        assert len(lvl_means)>1 and got[f'loss_{name}'].mean().item()==pytest.approx(weight*sum(lvl_means).item(), rel=1e-5)
    p = out.logits.sigmoid()
    y = torch.zeros_like(p)
    for b in range(2):
        for i in (matched[b]>=0).nonzero()[:,0]: y[b,i,targets[b]['labels'][matched[b,i]]] = 1.
    focal = -(y*.25*(1-p)**2*p.log() + (1-y)*.75*p**2*(1-p).log())[matched!=IGN].sum()
    assert got['loss_cls'].mean().item()==pytest.approx((focal/(matched>=0).sum()).item(), rel=1e-4)

def test_a_image_without_objects_counts_for_one_positive():
    head = RepPointsHead(3, 8, feat_channels=8, stacked_convs=1, strides=(8,))
    out = head([torch.randn(2,8,8,8)])
    none,one = dict(boxes=torch.zeros(0,5), labels=torch.zeros(0).long()),dict(boxes=tensor([[30.,30.,20.,20.,0.]]), labels=tensor([1]))
    a,b = head.loss(out, [none,none])['loss_cls'][0],head.loss(out, [none,one])['loss_cls'][0]
    n = (head.assign(out, [none,one])[1]>=0).sum()
    assert a.item()==pytest.approx(b.item()*(1+n.item())/2, rel=1e-5)

def test_25_points():
    m = create_detector('rotated_reppoints', 2, backbone='test_resnet', fpn_channels=16, feat_channels=16, stacked_convs=1,
                        strides=(8,16), k=25)
    assert m.stages[0].cls_conv.weight.shape[2:]==(5,5) and m.stages[0].first.out_channels==50
    losses = m(torch.randn(1,3,64,64), [dict(boxes=tensor([[30.,30.,20.,10.,.3]]), labels=tensor([1]))])
    assert all(v.isfinite() for v in losses.values())

def test_points_that_are_not_numbers_are_no_crash():
    head = RepPointsHead(2, 8, feat_channels=8, stacked_convs=1, strides=(8,)).eval()
    for bad in (math.nan, math.inf, -math.inf, 1e30):
        with torch.no_grad(): head.first.bias.fill_(bad); out = head([torch.randn(1,8,6,6)])
        assert len(head.detect(out._replace(logits=torch.zeros_like(out.logits)))[0]['boxes'])==0 or bad==1e30

# MMRotate's weights

FILES = [o for o in oracle_files('keys_0x/*.txt') if 'reppoints' in o.stem or o.stem.startswith('cfa')]

@needs_oracle
def test_published_keys():
    "One set of keys in seven configurations, which all open"
    same = {tuple(l for l in o.read_text().split('\n') if not l.startswith('#')) for o in FILES}
    assert len(FILES)==7 and len(same)==1
    sd = checkpoint(FILES[0].stem, 'keys_0x')
    det = quietly(sd)
    assert (det.name,det.n_classes,sum(p.numel() for p in det.parameters()))==('rotated_reppoints',15,36_832_371)
    load_mmrotate(det, {**sd, 'bbox_head.moment_transfer':torch.zeros(2)})  # of Oriented RepPoints 1.x
    with pytest.raises(KeysError, match='reppoints_extra'): load_mmrotate(det, {**sd, 'bbox_head.reppoints_extra':torch.ones(1)})
    with pytest.raises(KeysError, match='stages.0.move.bias'):
        load_mmrotate(det, {k:v for k,v in sd.items() if 'pts_refine_out.bias' not in k})

def read_at(x, pts, w):
    """What a convolution's weights `(o, c, k, k)` make of `x (1, c, h, w)` read at `pts (1, 2*k*k, h, w)`, y and x in cells from
    each location, with bilinear interpolation and zeros outside"""
    h,wd = x.shape[2:]
    y,xx = pts[0,0::2]+torch.arange(h)[:,None],pts[0,1::2]+torch.arange(wd)
    grid = torch.stack([(2*xx+1)/wd-1, (2*y+1)/h-1], -1).flatten(0,1)[None]
    seen = F.grid_sample(x, grid, align_corners=False).view(1, x.shape[1], len(y), h, wd)
    return torch.einsum('ock,bckhw->bohw', w.flatten(2), seen)

def their_head(sd, maps):
    "MMRotate's neck and head, from its keys: class scores, first and refined points of each level, y before x, in strides"
    def conv(x, name, stride=1, norm=True):
        w = sd[f'{name}.conv.weight' if norm else f'{name}.weight']
        x = F.conv2d(x, w, None if norm else sd[f'{name}.bias'], stride, w.shape[-1]//2)
        return F.group_norm(x, 32, sd[f'{name}.gn.weight'], sd[f'{name}.gn.bias']) if norm else x
    lats = [conv(x, f'neck.lateral_convs.{i}') for i,x in enumerate(maps)]
    for i in (1,0): lats[i] = lats[i]+F.interpolate(lats[i+1], size=lats[i].shape[2:], mode='nearest')
    levels = [conv(x, f'neck.fpn_convs.{i}') for i,x in enumerate(lats)]
    levels += [p6 := conv(maps[-1], 'neck.fpn_convs.3', 2), conv(p6, 'neck.fpn_convs.4', 2)]
    outs,h = [],'bbox_head.reppoints_'
    for c in levels:
        r = c
        for i in range(3): c,r = (conv(o, f'bbox_head.{n}_convs.{i}').relu() for n,o in (('cls',c),('reg',r)))
        first = conv(conv(r, h+'pts_init_conv', norm=False).relu(), h+'pts_init_out', norm=False)
        cls = conv(read_at(c, first, sd[h+'cls_conv.weight']).relu(), h+'cls_out', norm=False)
        outs.append((cls, first, conv(read_at(r, first, sd[h+'pts_refine_conv.weight']).relu(), h+'pts_refine_out', norm=False)+first))
    return [torch.cat([o[0].flatten(1).T for o in kind]) for kind in zip(*outs)]

@needs_oracle
def test_network_against_theirs_written_out():
    sd = checkpoint('rotated_reppoints_r50_fpn_1x_dota_le135', 'keys_0x')
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    det = quietly(sd, angle='le135')
    with torch.no_grad():
        maps = det.backbone(x)
        out = det.stages[0](det.neck(maps))
        cls,first,refined = their_head(sd, maps)
    rel = lambda a,b: ((a-b).abs().max()/b.abs().max()).item()
    errs = rel(out.logits[0], cls),rel(out.deltas[0,:,:18], first),rel(out.deltas[0,:,18:], refined)
    print('largest relative errors of classes, first and refined points', errs)
    close(errs, 1e-4)
    for d in det(x): assert d['boxes'].isfinite().all()

@needs_oracle
def test_losses_against_theirs_written_out():
    """MMRotate's rules on MMRotate's numbers, location by location: both sets of points lie y before x, and the second assigner
    reads the first of them as if x came before y"""
    sd = checkpoint('rotated_reppoints_r50_fpn_1x_dota_le135', 'keys_0x')
    x = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    det = quietly(sd, angle='le135')
    assert det.stages[0].swapped and det.recipe()['stages'][0]['swapped'], 'loading says so'
    boxes = torch.tensor([[41.8,78.5,38.1,17.9,.17],[51.4,81.2,30.2,15.6,.57],[36.,49.2,50.8,22.9,.18],
                          [61.4,73.2,39.2,17.,-.37],[85.5,38.,41.,21.6,-.48]])
    labels,quads = torch.tensor([3,7,0,14,3]),rbox2qbox(boxes)
    with torch.no_grad():
        got = det.train()(x, [dict(boxes=boxes, labels=labels)])
        cls,first,refined = their_head(sd, det.backbone(x))
    pri = [(x*s,y*s,s) for s in (8,16,32,64,128) for y in range(128//s) for x in range(128//s)]
    at,step = torch.tensor(pri)[:,None,:2].float(),torch.tensor(pri)[:,None,2:].float()
    xy = lambda o: at+o.view(-1,9,2).flip(-1)*step
    iou = convex_iou(at+first.view(-1,9,2)*step, quads)
    best,of = iou.max(1)
    matched = torch.where(best>=.4, of, torch.where(best>=.3, IGN, NEG))
    for j in range(5): matched[iou[:,j]==iou[:,j].max()] = j
    near = nearest_assign(torch.tensor([[*o[:2],o[2],o[2],0.] for o in pri]), boxes)
    def points_loss(pts, m): # the mean over a level's positives, summed over levels
        per = [convex_giou_loss(pts[on], quads[m[on]]).mean() for s in (8,16,32,64,128) if (on := (m>=0)&(step[:,0,0]==s)).any()]
        return sum(per).item()
    p,y = cls.sigmoid(),torch.zeros_like(cls)
    on = matched>=0
    y[on.nonzero()[:,0],labels[matched[on]]] = 1.
    focal = -(y*.25*(1-p)**2*p.log()+(1-y)*.75*p**2*(1-p).log())[matched!=IGN].sum()/on.sum()
    want = dict(loss_cls=focal.item(), loss_first=.375*points_loss(xy(first), near), loss_box=points_loss(xy(refined), matched))
    assert on.sum()>=3 and {k:v.item() for k,v in got.items()}==pytest.approx(want, rel=1e-3)
    det.stages[0].swapped = False
    with torch.no_grad(): right = det(x, [dict(boxes=boxes, labels=labels)])
    assert right['loss_first']==got['loss_first'] and right['loss_cls']!=got['loss_cls']

# configurations

CONFIG = """
norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
model = dict(type='RotatedRepPoints', backbone=dict(type='ResNet', depth=50, frozen_stages=1, norm_eval=True),
    neck=dict(type='FPN', in_channels=[256,512,1024,2048], out_channels=256, start_level=1, add_extra_convs='on_input',
              num_outs=5, norm_cfg=norm_cfg),
    bbox_head=dict(type='RotatedRepPointsHead', num_classes=15, in_channels=256, feat_channels=256, stacked_convs=3,
                   num_points=9, gradient_mul=0.3,
        point_strides=[8,16,32,64,128], point_base_scale=2, norm_cfg=norm_cfg,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox_init=dict(type='ConvexGIoULoss', loss_weight=0.375),
        loss_bbox_refine=dict(type='ConvexGIoULoss', loss_weight=1.0), transform_method='rotrect', use_reassign=False),
    train_cfg=dict(init=dict(assigner=dict(type='ConvexAssigner', scale=4, pos_num=1)),
        refine=dict(assigner=dict(type='MaxConvexIoUAssigner', pos_iou_thr=0.4, neg_iou_thr=0.3, min_pos_iou=0, ignore_iof_thr=-1))),
    test_cfg=dict(nms_pre=2000, min_bbox_size=0, score_thr=0.05, nms=dict(iou_thr=0.4), max_per_img=2000))"""

def test_configuration():
    """What MMRotate writes is what `rotated_reppoints` is by default, but for the angle, the steep sets that it drops, and how its older
    line counts candidates"""
    kw = settings_from_config(CONFIG)
    assert kw['angle']=='oc' and kw['nms_pre_of']=='priors'
    name,n = kw.pop('name'),kw.pop('n_classes')
    a = create_detector(name, n, **kw).recipe()
    b = create_detector('rotated_reppoints', 15, angle='oc', nms_pre_of='priors', steep=1.,
                        backbone_kw=dict(frozen=1, norm_eval=True)).recipe()
    a['stages'][0]['first_assigner'] = b['stages'][0]['first_assigner'] = None   # once with its defaults spelt out
    assert a==b
    assert kw['first_assigner'].keywords==dict(scale=4, topk=1)

KIN = dict(
    cfa=('use_reassign=False','use_reassign=True'),
    g_rep=("'RotatedRepPointsHead'","'KLDRepPointsHead'"), sasm=("'RotatedRepPointsHead'","'SAMRepPointsHead'"),
    oriented_reppoints=("'RotatedRepPointsHead'","'OrientedRepPointsHead'"))

@pytest.mark.parametrize('name', KIN)
@pytest.mark.filterwarnings('error')
def test_kin_opens_as_itself(name):
    "With the settings that MMRotate's configuration gives it, which are its own but for what the older line does otherwise"
    text = CONFIG.replace(*KIN[name])
    loss = dict(g_rep="type='KLDRepPointsLoss'").get(name, "type='ConvexGIoULoss'")
    text = text.replace("type='ConvexGIoULoss'", loss)
    if name=='sasm': text = text.replace("loss_bbox_init=dict(type='ConvexGIoULoss'", "loss_bbox_init=dict(type='BCConvexGIoULoss'")
    later = dict(sasm="type='SASAssigner', topk=9", g_rep="type='ATSSKldAssigner', topk=9")
    text = text.replace("type='MaxConvexIoUAssigner', pos_iou_thr=0.4, neg_iou_thr=0.3, min_pos_iou=0, ignore_iof_thr=-1", later.get(
        name, "type='MaxConvexIoUAssigner', pos_iou_thr=0.1, neg_iou_thr=0.1, min_pos_iou=0, ignore_iof_thr=-1"))
    kw = settings_from_config(text)
    assert kw.pop('name')==name
    usual = create_detector(name, 15, angle='oc', nms_pre_of='priors', backbone_kw=dict(frozen=1, norm_eval=True)).recipe()['stages'][0]
    found = create_detector(name, kw.pop('n_classes'), **kw).recipe()['stages'][0]
    differ = {key for key in usual if found[key]!=usual[key]}
    assert differ <= {'first_assigner','steep','assigner','choose','loss_border'}, differ
    if name in ('cfa','oriented_reppoints'): assert found['choose']['func']==usual['choose'] and found['assigner']==usual['assigner']
    if name=='g_rep': assert found['assigner']==usual['assigner']|dict(topk=9)
    with pytest.raises(ConfigError, match='rotrect'): settings_from_config(CONFIG.replace("'rotrect'", "'moment'"))

# choices

def test_cfa_against_loops():
    "The published rule, object by object, for random candidates"
    g = torch.Generator().manual_seed(3)
    objects,lvls = torch.randint(4, (60,), generator=g),torch.randint(2, (60,), generator=g)
    objects[objects==3],objects[-1] = 2,3                                      # one has a single candidate
    boxes = scene(3, 4)
    sets = rbox2qbox(boxes[objects])+torch.randn(60, 4, 2, generator=g)*8
    quads,cls_loss = rbox2qbox(boxes),torch.rand(60, generator=g)
    keep,weight = cfa_choose(Matches(objects, lvls, sets, sets, quads, cls_loss, convex_giou_loss, None, (8,16), False))
    cost,iou,want = (cls_loss+convex_giou_loss(sets, quads[objects])).tolist(),convex_iou(sets, quads),{}
    for j in range(4):
        mine = []
        for l in range(2): mine += sorted((cost[i], i) for i in range(60) if (objects[i],lvls[i])==(j,l))[:6]
        mine.sort()
        if len(mine)<2: want |= {i:1. for _,i in mine}; continue
        l = torch.tensor([c for c,_ in mine], dtype=torch.float64)
        p = (-(l-l.mean())**2/l.var()).exp()/l.var().sqrt()
        left = torch.stack([p[i:].sum() for i in range(len(p))])
        sure = (left-left.min())/(left.max()-left.min())
        few = mine[:int((sure*l).argmax())+1]
        w = torch.tensor([.75*iou[i,j]/(iou[i].sum()+1e-6)*sure[n]+1e-6 for n,(_,i) in enumerate(few)])
        want |= {i:x for (_,i),x in zip(few, (w/w.mean()).tolist())}
    assert keep.nonzero()[:,0].tolist()==sorted(want) and 4<len(want)<40
    assert weight[keep].tolist()==pytest.approx([want[i] for i in sorted(want)], rel=1e-3)

@pytest.mark.parametrize('name', ['cfa','sasm','oriented_reppoints','g_rep'])
def test_kin_stands_what_is_not_a_number_or_not_there(name):
    "No candidate, one, ignored objects alone, a level of fewer locations than candidates, and broken pixels"
    det = create_detector(name, 2, backbone='test_resnet', fpn_channels=8, feat_channels=8, stacked_convs=1, norm=False,
                          fpn_norm=False, strides=(8,16))
    x = torch.randn(2,3,32,32)
    one = dict(boxes=tensor([[16.,15.,20.,10.,.3]]), labels=tensor([1]))
    for more in (dict(one), dict(one, ignore=tensor([True])), dict(boxes=torch.zeros(0,5), labels=torch.zeros(0).long())):
        losses = det(x, [one,more])
        assert all(loss.isfinite() for loss in losses.values())
        det.zero_grad(); sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in det.parameters() if p.grad is not None)
    x[1] = math.nan
    assert len(det.eval()(x)[1]['boxes'])==0
    assert set(det.train()(x, [one,one]))==set(losses)
