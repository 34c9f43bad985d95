"Losses and boxes of MMRotate's configurations that have no reference, against their formulas written out once more, object by object"
import math
import pytest, torch
import torch.nn.functional as F
from torch import tensor
from reference import checkpoint, close, needs_oracle, quietly
from rotnb.geometry.boxes import rbox2hbox
from rotnb.interop.mmconfig import settings_from_config
from rotnb.models import create_detector
from rotnb.models.contract import StageOut
from rotnb.ops.iou import box_iou_rotated
from rotnb.targets.assign import IGN, NEG

SIZE,STRIDES = 128,[8,16,32,64,128]
BODY = dict(backbone=dict(type='mmdet.ResNet', depth=18),
            neck=dict(type='mmdet.FPN', out_channels=8, start_level=1, add_extra_convs='on_input', num_outs=5),
            test_cfg=dict(nms_pre=2000, score_thr=.05, nms=dict(type='nms_rotated', iou_threshold=.1), max_per_img=2000))
FOCAL,L1 = dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2., alpha=.25, loss_weight=1.),dict(type='mmdet.L1Loss', loss_weight=.2)

def detector(**model):
    torch.manual_seed(0)
    return create_detector(**settings_from_config(dict(BODY, **model)))

def some_out(stage, b=2, seed=0, priors=None):
    "What a stage could say: random numbers in the place of those of the network"
    torch.manual_seed(seed)
    feats = [torch.randn(b, 8, SIZE//s, SIZE//s) for s in STRIDES]
    out = stage(feats, priors)
    quality = None if out.quality is None else torch.randn_like(out.quality)
    return out._replace(logits=torch.randn_like(out.logits), deltas=torch.randn_like(out.deltas)*.3+.5*(quality is not None),
                        quality=quality, size=(SIZE,SIZE))

# sides in either order
BOXES = tensor([[41.8,78.5,38.,18.,.2],[51.4,81.2,15.,30.,.9],[36.,49.2,50.8,22.9,1.8],[85.5,38.,21.6,41.,-1.2],[91.,90.,60.,55.,.4]])
TARGETS = [dict(boxes=BOXES, labels=tensor([0,1,2,0,1])),dict(boxes=BOXES[:0], labels=tensor([]).long())]

def sigmoid_focal(logits, labels):
    y = F.one_hot(labels, logits.shape[-1]+1)[...,:-1].float(); p = logits.sigmoid()
    return -(y*.25*(1-p)**2*p.log() + (1-y)*.75*p**2*(1-p).log()).sum(-1)

def regular(b, version='le90'):
    "The spelling that MMRotate 1.x gives objects"
    x,y,w,h,t = b.unbind(-1)
    if version=='oc':
        t = (t+math.pi/2)%math.pi
        return torch.stack([x, y, torch.where(t<math.pi/2, w, h), torch.where(t<math.pi/2, h, w),
                            torch.where(t<math.pi/2, t, t-math.pi/2)-math.pi/2], -1)
    lo = -math.pi/2 if version=='le90' else -math.pi/4
    t = torch.where(w>h, t, t+math.pi/2)
    return torch.stack([x, y, torch.where(w>h, w, h), torch.where(w>h, h, w), (t-lo)%math.pi+lo], -1)

def covariance(b):
    c,s = b[4].cos(),b[4].sin()
    R = torch.stack([torch.stack([c,-s]), torch.stack([s,c])])
    return R@torch.diag((b[2:4]/2)**2)@R.T

def kld_v1(p, t):
    "GDLoss_v1 'kld', 'log1p', tau 1: twice the divergence of the prediction from the object"
    S,T = covariance(p),covariance(t)
    d = (p[:2]-t[:2])@T.inverse()@(p[:2]-t[:2]) + (T.inverse()@S).trace() + (T.det()/S.det()).log() - 2
    return 1-1/(1+torch.log1p(d.clamp(min=1e-6)))

# --- FCOS

FCOS = dict(type='RotatedFCOSHead', num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1, strides=STRIDES, center_sampling=True,
            center_sample_radius=1.5, norm_on_bbox=True,
            centerness_on_reg=True, scale_angle=True, bbox_coder=dict(type='DistanceAnglePointCoder', angle_version='le90'),
            loss_cls=FOCAL,
            loss_centerness=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.))
CSL = dict(type='CSLCoder', angle_version='le90', omega=1, window='gaussian', radius=1)
def psc(dual): return dict(type='PSCCoder', angle_version='le90', dual_freq=dual, num_step=3, thr_mod=0)
FCOS_HEADS = dict(
    joint=dict(loss_bbox=dict(type='RotatedIoULoss', loss_weight=1.)),
    kld=dict(loss_bbox=dict(type='GDLoss_v1', loss_type='kld', fun='log1p', tau=1, loss_weight=1.)),
    hbox=dict(loss_bbox=dict(type='mmdet.IoULoss', loss_weight=1.), loss_angle=L1, use_hbbox_loss=True),
    sep_angle=dict(loss_bbox=dict(type='GIoULoss', loss_weight=1.), loss_angle=L1, separate_angle=True),
    csl=dict(loss_bbox=dict(type='mmdet.IoULoss', loss_weight=1.), use_hbbox_loss=True, scale_angle=False, angle_coder=CSL,
             loss_angle=dict(type='SmoothFocalLoss', gamma=2., alpha=.25, loss_weight=.2)),
    psc=dict(loss_bbox=dict(type='mmdet.IoULoss', loss_weight=1.), use_hbbox_loss=True, scale_angle=False, angle_coder=psc(False),
             loss_angle=L1),
    psc_dual=dict(loss_bbox=dict(type='mmdet.IoULoss', loss_weight=1.), use_hbbox_loss=True, scale_angle=False, angle_coder=psc(True),
                  loss_angle=L1))

def fcos_positives(boxes):
    "Location by location: index, object and distances to its sides"
    found,i,lo = [],0,-1.
    for s,hi in zip(STRIDES, (64.,128.,256.,512.,1e8)):
        for r in range(SIZE//s):
            for c in range(SIZE//s):
                best = None
                for j,(x,y,w,h,t) in enumerate(boxes.tolist()):
                    u,v = (c+.5)*s-x,(r+.5)*s-y
                    u,v = u*math.cos(t)+v*math.sin(t),v*math.cos(t)-u*math.sin(t)
                    d = w/2+u,h/2+v,w/2-u,h/2-v
                    if min(d)>0 and max(abs(u),abs(v))<1.5*s and lo<=max(d)<=hi and (best is None or w*h<best[0]):
                        best = w*h,j,d,s,((c+.5)*s,(r+.5)*s)
                if best: found.append((i,*best[1:]))
                i += 1
        lo = hi
    return found

def angle_loss(kind, raw, t):
    if kind in ('hbox','sep_angle'): return (raw[0]-t).abs()
    if kind=='csl':
        y = torch.zeros(180)
        for k in range(-90, 90): y[(int((math.degrees(t)+90))+k)%180] = math.exp(-k**2)/2
        p = raw.sigmoid()
        return ((.25*y+.75*(1-y))*((1-p)*y+p*(1-y))**2*F.binary_cross_entropy_with_logits(raw, y, reduction='none')).sum()
    code = [math.cos(f*t+2*math.pi*k/3) for f in ((2,4) if kind=='psc_dual' else (2,)) for k in range(3)]
    return (raw-tensor(code)).abs().sum()

def side_loss(kind, point, s, d, want):
    "The box loss of distances `d` where `want` are right"
    at = lambda d: tensor([point[0]-d[0]*s, point[1]-d[1]*s, point[0]+d[2]*s, point[1]+d[3]*s])
    p,q = at(d.clamp(min=0)),at(want)
    inter = (torch.minimum(p[2:],q[2:])-torch.maximum(p[:2],q[:2])).clamp(min=0).prod()
    union = (p[2:]-p[:2]).prod()+(q[2:]-q[:2]).prod()-inter
    if kind!='sep_angle': return -(inter/union).clamp(min=1e-6).log()
    hull = (torch.maximum(p[2:],q[2:])-torch.minimum(p[:2],q[:2])).prod()
    return 1-inter/union+(hull-union)/hull

@pytest.mark.parametrize('kind', FCOS_HEADS)
def test_fcos_losses(kind):
    det = detector(type='mmdet.FCOS', bbox_head=dict(FCOS, **FCOS_HEADS[kind]), train_cfg=None)
    out = some_out(det.stages[0])
    got = det.stages[0].loss(out, TARGETS)
    boxes = regular(BOXES)
    pos = fcos_positives(boxes)
    labels = torch.full(out.logits.shape[:2], 3)
    for i,j,*_ in pos: labels[0,i] = TARGETS[0]['labels'][j]
    want,total = dict(loss_cls=sigmoid_focal(out.logits, labels).sum()/len(pos)),0.
    box,angle,quality = [],[],[]
    for i,j,d,s,point in pos:
        raw,side = out.deltas[0,i],tensor(d)/s
        central = math.sqrt(min(d[0],d[2])/max(d[0],d[2])*min(d[1],d[3])/max(d[1],d[3])); total += central
        quality.append(F.binary_cross_entropy_with_logits(out.quality[0,i], tensor(central)))
        if kind in ('joint','kld'):
            l,t,r,b = raw[:4].clamp(min=0)*s
            u,v,a = (r-l)/2,(b-t)/2,raw[4]
            p = torch.stack([point[0]+u*a.cos()-v*a.sin(), point[1]+u*a.sin()+v*a.cos(), l+r, t+b, a])
            box.append(kld_v1(p, boxes[j]) if kind=='kld' else -box_iou_rotated(p[None], boxes[j:j+1],
                                                                                aligned=True)[0].clamp(min=1e-6).log()*central)
        else:
            box.append(side_loss(kind, point, s, raw[:4], side)*central)
            angle.append(angle_loss(kind, raw[4:], boxes[j,4].item()))
    want['loss_quality'] = sum(quality)/len(pos)
    want['loss_box'] = sum(box)/(len(pos) if kind=='kld' else total)      # GDLoss_v1 knows no weights
    if angle: want['loss_angle'] = .2*sum(angle)/len(pos)
    assert len(pos)>15 and set(got)==set(want)
    for k,v in want.items(): assert got[k].mean().item()==pytest.approx(v.item(), rel=1e-4), k

@pytest.mark.parametrize('kind', FCOS_HEADS)
def test_fcos_without_objects(kind):
    det = detector(type='mmdet.FCOS', bbox_head=dict(FCOS, **FCOS_HEADS[kind]), train_cfg=None)
    got = det.stages[0].loss(out := some_out(det.stages[0]), [TARGETS[1]]*2)
    assert got.pop('loss_cls').mean().item()==pytest.approx(sigmoid_focal(out.logits, torch.full(out.logits.shape[:2], 3)).sum().item(),
                                                            rel=1e-5)
    assert all(v.eq(0).all() for v in got.values())

# --- anchors

def norm(a, version):
    return a if version=='oc' else (a+math.pi/2)%math.pi-math.pi/2 if version=='le90' else (a+math.pi/4)%math.pi-math.pi/4

def encode(p, g, version, swap, proj, factor=None):
    "Deltas of one pair"
    (px,py,pw,ph,pt),(gx,gy,gw,gh,gt) = p.tolist(),regular(g, version).tolist()
    dx,dy = gx-px,gy-py
    if proj: dx,dy = math.cos(pt)*dx+math.sin(pt)*dy,math.cos(pt)*dy-math.sin(pt)*dx
    d1,d2 = norm(gt-pt, version),norm(gt-pt+math.pi/2, version)
    if swap and abs(d1)>=abs(d2): gw,gh,d1 = gh,gw,d2
    return tensor([dx/pw, dy/ph, math.log(gw/pw), math.log(gh/ph), d1/(factor*math.pi if factor else 1)])

def decode(p, d, version, swap, proj, factor=None):
    "The box of one pair, in MMRotate's spelling"
    (px,py,pw,ph,pt),(dx,dy,dw,dh,dt) = p.tolist(),d.tolist()
    lim = math.log(1000/16)
    w,h = pw*math.exp(min(max(dw,-lim),lim)),ph*math.exp(min(max(dh,-lim),lim))
    x,y = dx*pw,dy*ph
    if proj: x,y = x*math.cos(pt)-y*math.sin(pt),x*math.sin(pt)+y*math.cos(pt)
    t = norm(pt+dt*(factor*math.pi if factor else 1), version)
    if swap and not w>h: w,h,t = h,w,norm(t+math.pi/2, version)
    return tensor([px+x, py+y, w, h, t])

def assigned(priors, boxes, pos=.5, neg=.4, hbox=False):
    "MMDetection's rule, prior by prior and then object by object"
    if not len(boxes): return torch.full((len(priors),), NEG)
    upr = lambda b: torch.cat([(rbox2hbox(b)[:,:2]+rbox2hbox(b)[:,2:])/2, rbox2hbox(b)[:,2:]-rbox2hbox(b)[:,:2], b[:,4:]*0], 1)
    iou = box_iou_rotated(upr(boxes) if hbox else boxes, upr(priors) if hbox else priors)
    best,j = iou.max(0)
    m = torch.where(best>=pos, j, torch.where(best>=neg, IGN, NEG))
    for k in range(len(boxes)): m[iou[k]==iou[k].max()] = k
    return m

def kfiou(p, t, dp, dt, fun):
    S,T = covariance(p.double()),covariance(t.double())
    v = 4*(S-S@(S+T).inverse()@S).det().sqrt()
    k = v/(4*S.det().sqrt()+4*T.det().sqrt()-v)
    xy = F.smooth_l1_loss(dp[:2], dt[:2], beta=1/9, reduction='sum')
    return xy + (-k.log() if fun=='ln' else (1-k).exp()-1 if fun=='exp' else 1-k)

def anchor_losses(out, targets, box, angle=None, **rule):
    "Losses of a stage on its priors: `box(prior, deltas, object)` of each positive, divided as in MMDetection; a list of levels beside"
    m = torch.stack([assigned(p, t['boxes'], **rule) for p,t in zip(out.priors, targets)])
    n = (m>=0).sum(1).clamp(min=1).sum()
    labels = torch.full(m.shape, out.logits.shape[-1])
    terms,angles,lvls = [],[],[]
    for b,i in (m>=0).nonzero().tolist():
        labels[b,i] = targets[b]['labels'][m[b,i]]
        g = targets[b]['boxes'][m[b,i]]
        terms.append(box(out.priors[b,i], out.deltas[b,i], g)); lvls.append(out.lvls[i].item())
        if angle: angles.append(angle(out.priors[b,i], out.deltas[b,i], g))
    cls = (sigmoid_focal(out.logits, labels)*(m!=IGN)).sum()/n
    return dict(loss_cls=cls, loss_box=sum(terms)/n, **(dict(loss_angle=sum(angles)/n) if angle else {})),terms,lvls

def same(got, want):
    assert set(got)==set(want)
    for k,v in want.items(): assert got[k].mean().item()==pytest.approx(float(v), rel=2e-4), k

def coder(version, swap, proj, factor=None, old=False):
    return dict(type='DeltaXYWHAOBBoxCoder' if old else 'DeltaXYWHTRBBoxCoder', norm_factor=factor, edge_swap=swap, proj_xy=proj,
    target_means=[0.]*5, target_stds=[1.]*5, **{'angle_range' if old else 'angle_version':version})
def anchors(version, n=3):
    return dict(type='FakeRotatedAnchorGenerator', angle_version=version, octave_base_scale=4, scales_per_octave=n,
                ratios=[1.,.5,2.] if n>1 else [1.], strides=STRIDES)
def train(pos=.5, neg=.4, calc='RBboxOverlaps2D'):
    return dict(assigner=dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=pos, neg_iou_thr=neg, min_pos_iou=0, ignore_iof_thr=-1,
                              iou_calculator=dict(type=calc)))
HEAD = dict(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=1, loss_cls=FOCAL)
RETINA = dict(HEAD, type='mmdet.RetinaHead')
LE90,OC,LE135 = ('le90',True,True),('oc',False,False),('le135',True,True)

@pytest.mark.parametrize('form', [LE90,OC,LE135], ids=lambda o: o[0])
@pytest.mark.parametrize('hbox', [False,True])
@pytest.mark.parametrize('kind', ['l1','kld','none','ln','exp'])
def test_retinanet_losses(form, hbox, kind):
    "A batch with an empty image, which counts for one positive; objects spelt in any way"
    loss = L1 if kind=='l1' else dict(type='GDLoss_v1', loss_type='kld', fun='log1p', tau=1,
                                      loss_weight=1.) if kind=='kld' else dict(type='KFLoss', fun=kind, loss_weight=5.)
    head = dict(RETINA, anchor_generator=anchors(form[0]), bbox_coder=coder(*form), loss_bbox=loss)
    det = detector(type='mmdet.RetinaNet', bbox_head=head, train_cfg=train(calc='FakeRBboxOverlaps2D' if hbox else 'RBboxOverlaps2D'))
    out = some_out(det.stages[0])
    def box(p, d, g):
        if kind=='l1': return .2*(d-encode(p, g, *form)).abs().sum()
        if kind=='kld': return kld_v1(decode(p, d, *form), g)
        return 5*kfiou(decode(p, d, *form), g, d, encode(p, g, *form), kind)
    want,terms,lvls = anchor_losses(out, TARGETS, box, hbox=hbox)
    assert len(terms)>3 and len(set(lvls))>1
    # GDLoss_v1 is a mean, level by level
    if kind=='kld': want['loss_box'] = sum(torch.stack([t for t,l in zip(terms, lvls) if l==k]).mean() for k in set(lvls))
    same(det.stages[0].loss(out, TARGETS), want)

@pytest.mark.parametrize('dual', [False,True])
def test_retinanet_psc_losses(dual):
    head = dict(RETINA, type='AngleBranchRetinaHead', anchor_generator=anchors(None), bbox_coder=coder(*LE90),
                use_normalized_angle_feat=True, angle_coder=psc(dual),
                loss_bbox=dict(L1, loss_weight=.7), loss_angle=dict(L1, loss_weight=.6))
    det = detector(type='mmdet.RetinaNet', bbox_head=head, train_cfg=train())
    out = some_out(det.stages[0])
    want,*_ = anchor_losses(out, TARGETS, lambda p,d,g: .7*(d[:5]-encode(p, g, *LE90)).abs().sum(),
                            lambda p,d,g: .6*angle_loss('psc_dual' if dual else 'psc', d[5:], encode(p, g, *LE90)[4].item()))
    same(det.stages[0].loss(out, TARGETS), want)

@pytest.mark.parametrize('kind', ['smooth_l1','ln'])
def test_r3det_refine_losses(kind):
    "Two stages that refine: each takes the decoded box of the best anchor, assigns to it and encodes from it; the last counts half"
    loss = dict(type='mmdet.SmoothL1Loss', beta=.11, loss_weight=1.) if kind=='smooth_l1' else dict(type='KFLoss', fun='ln',
        loss_weight=1.)
    first = dict(HEAD, type='R3Head', anchor_generator=anchors('oc'), bbox_coder=coder(*OC), loss_bbox=loss)
    later = dict(HEAD, type='R3RefineHead', anchor_generator=dict(type='PseudoRotatedAnchorGenerator', strides=STRIDES),
                 bbox_coder=coder(*OC), loss_bbox=loss)
    det = detector(type='RefineSingleStageDetector', bbox_head_init=first, bbox_head_refine=[later]*2,
                   train_cfg=dict(init=train(), refine=[train(.6,.5),train(.7,.6)], stage_loss_weights=[1.,.5]))
    priors = None
    for k,(stage,(pos,neg),w) in enumerate(zip(det.stages, ((.5,.4),(.6,.5),(.7,.6)), (1.,1.,.5))):
        out = some_out(stage, seed=k, priors=priors)
        def box(p, d, g):
            e = encode(p, g, *OC)
            return w*(F.smooth_l1_loss(d, e, beta=.11, reduction='sum') if kind=='smooth_l1' else kfiou(decode(p, d, *OC), g, d, e, 'ln'))
        want,terms,_ = anchor_losses(out, TARGETS, box, pos=pos, neg=neg)
        want['loss_cls'] = w*want['loss_cls']
        assert len(terms)>=4
        same(stage.loss(out, TARGETS), want)
        if k<2:
            n = stage.n
            best = out.logits.amax(-1).view(2, -1, n).argmax(-1)
            want = torch.stack([torch.stack([decode(out.priors[b,i*n+j], out.deltas[b,i*n+j], *OC) for i,
                                             j in enumerate(best[b].tolist())]) for b in range(2)])
            priors = stage.boxes(out)
            torch.testing.assert_close(priors, want, rtol=1e-4, atol=1e-4)

def test_atss_box_loss_is_divided_by_one_at_least():
    "The centerness of a single poor positive must not blow its loss up, and is measured in the upright box around the object"
    head = dict(HEAD, type='RotatedATSSHead', anchor_generator=anchors('oc', 1), bbox_coder=coder('oc', False, False),
                loss_bbox=dict(type='RotatedIoULoss', mode='linear', loss_weight=2.),
                loss_centerness=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=1.))
    det = detector(type='mmdet.RetinaNet', bbox_head=head,
                   train_cfg=dict(assigner=dict(type='RotatedATSSAssigner', topk=9, iou_calculator=dict(type='RBboxOverlaps2D'))))
    out = some_out(det.stages[0])
    t = [dict(boxes=tensor([[43.,43.,9.,7.,.6]]), labels=tensor([1])),TARGETS[1]]
    i = (det.stages[0].assign(out, t)[0]>=0).nonzero()[:,0]
    p,g = out.priors[0,i],t[0]['boxes'].expand(len(i),-1)
    x1,y1,x2,y2 = rbox2hbox(g).unbind(1)
    l,r,top,b = p[:,0]-x1,x2-p[:,0],p[:,1]-y1,y2-p[:,1]
    central = (torch.minimum(l,r)/torch.maximum(l,r)*torch.minimum(top,b)/torch.maximum(top,b)).sqrt()
    iou = box_iou_rotated(torch.stack([decode(a, d, 'oc', False, False) for a,d in zip(p, out.deltas[0,i])]), g, aligned=True)
    assert 0<central.sum()<1
    got = det.stages[0].loss(out, t)
    assert got['loss_box'].mean().item()==pytest.approx((2*(1-iou.clamp(min=1e-6))*central).sum().item(), rel=1e-4)
    assert got['loss_quality'].mean().item()==pytest.approx(F.binary_cross_entropy_with_logits(out.quality[0,i], central,
        reduction='sum').item()/(len(i)+1), rel=1e-4)

# --- RoIs

def roi_trans(version, swap=True, loss=None, old=False):
    rpn = dict(type='mmdet.RPNHead', feat_channels=8, anchor_generator=dict(scales=[8], ratios=[.5,1.,2.], strides=[4,8,16,32,64]),
               bbox_coder=dict(type='DeltaXYWHHBBoxCoder'))
    loss = loss or dict(type='mmdet.SmoothL1Loss', beta=1., loss_weight=1.)
    heads = [dict(type='RotatedShared2FCBBoxHead', num_classes=3, fc_out_channels=16, reg_class_agnostic=i==0, loss_bbox=loss,
                  bbox_coder=dict(coder(version, swap, True, (2,None)[i], old), target_stds=s))
             for i,s in enumerate(([.1,.1,.2,.2,.1],[.05,.05,.1,.1,.05]))]
    cuts = [dict(roi_layer=o, featmap_strides=[4,8,16,32]) for o in (dict(type='RoIAlign', output_size=7, sampling_ratio=0),
                                                                     dict(type='RoIAlignRotated', out_size=7, sample_num=2,
                                                                          clockwise=True))]
    rcnn = dict(train(.5,.5), sampler=dict(type='mmdet.RandomSampler', num=64, pos_fraction=.25))
    return detector(type='mmdet.CascadeRCNN', neck=dict(type='mmdet.FPN', out_channels=8, num_outs=5), rpn_head=rpn,
                    roi_head=dict(bbox_roi_extractor=cuts, bbox_head=heads), train_cfg=dict(rcnn=[rcnn]*2),
                    test_cfg=dict(rpn=dict(nms=dict(iou_threshold=.7)),
                                  rcnn=dict(score_thr=.05, nms=dict(iou_threshold=.1), max_per_img=2000)))

def roi_out(stage, priors, sample=None):
    torch.manual_seed(1)
    n = (1 if stage.agnostic else stage.n_classes)*stage.coder.n
    return StageOut(torch.randn(*priors.shape[:2], 4), torch.randn(*priors.shape[:2], n), priors, torch.zeros(priors.shape[:2]).long(),
                    size=(SIZE,SIZE), sample=sample)

@pytest.mark.parametrize('version', ['le90','le135','oc'])
@pytest.mark.parametrize('swap', [True,False])
def test_roi_trans_hands_on_boxes_as_spelt(version, swap):
    "The second stage reads features along its RoI's first side, which must be MMRotate's, also for 'oc', whose angles stay as they come"
    first = roi_trans(version, swap).stages[1]
    priors = torch.rand(1, 50, 5)*tensor([100.,100.,40.,40.,0.])+tensor([10.,10.,5.,5.,0.])
    out = roi_out(first, priors)
    stds = tensor([.1,.1,.2,.2,.1])
    want = torch.stack([decode(p, d*stds, version, swap, True, 2) for p,d in zip(priors[0], out.deltas[0])])
    torch.testing.assert_close(first.boxes(out)[0], want, rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize('version', ['le90','le135','oc'])
@pytest.mark.parametrize('kind', ['smooth_l1','ln'])
def test_roi_trans_losses(version, kind):
    det = roi_trans(version, loss=None if kind=='smooth_l1' else dict(type='KFLoss', fun='ln', loss_weight=5.))
    for stage,factor,stds in zip(det.stages[1:], (2,None), ([.1,.1,.2,.2,.1],[.05,.05,.1,.1,.05])):
        priors = torch.cat([BOXES+torch.randn(5,5,
                                              generator=torch.Generator().manual_seed(k))*tensor([1.,1.,1.,1.,.05]) for k in range(8)])
        if stage.hbox: priors = torch.cat([priors[:,:4], priors[:,4:]*0], 1)
        sample = stage.sample(priors[None].repeat(2,1,1), TARGETS)
        out = roi_out(stage, sample.priors, sample)
        stds,n,box = tensor(stds),(sample.matched!=IGN).sum(),[]
        labels = torch.full(sample.matched.shape, 3)
        for b,i in (sample.matched>=0).nonzero().tolist():
            j = sample.matched[b,i]; labels[b,i] = l = TARGETS[b]['labels'][j]
            d,e = out.deltas[b,i].view(-1,5)[0 if stage.agnostic else l],encode(out.priors[b,i], BOXES[j], version, True, True,
                                                                                factor)/stds
            box.append(F.smooth_l1_loss(d, e, beta=1.,
                                        reduction='sum') if kind=='smooth_l1' else 5*kfiou(decode(out.priors[b,i], d*stds, version, True,
                                                                                                  True, factor), BOXES[j], d, e, 'ln'))
        assert len(box)>8
        cls = F.cross_entropy(out.logits.flatten(0,1), labels.flatten(), reduction='none').view(labels.shape)
        same(stage.loss(out, TARGETS), dict(loss_cls=(cls*(sample.matched!=IGN)).sum()/n, loss_box=sum(box)/n))

# --- transformers

def layer_norm(x, sd, k, eps=1e-5): return F.layer_norm(x, x.shape[-1:], sd[f'{k}.weight'], sd[f'{k}.bias'], eps)
def linear(x, sd, k): return F.linear(x, sd[f'{k}.weight'], sd.get(f'{k}.bias'))

def window_attention(x, sd, k, heads, shift, ws=7):
    "Attention of `(h, w, c)` in windows, which wrap round the padded image where they are shifted, but do not look across its border"
    h,w,c = x.shape
    x = F.pad(x, (0,0, 0,-w%ws, 0,-h%ws))
    H,W = x.shape[:2]
    region = torch.zeros(H, W)
    if shift:
        x = x.roll((-shift,-shift), (0,1))
        part = lambda n: torch.cat([torch.zeros(n-ws), torch.ones(ws-shift), torch.full((shift,), 2.)])
        region = part(H)[:,None]*3+part(W)
    cut = lambda o: o.view(H//ws, ws, W//ws, ws, -1).transpose(1, 2).reshape(-1, ws*ws, o.shape[-1])
    q,key,v = linear(cut(x), sd, f'{k}.w_msa.qkv').view(-1, ws*ws, 3, heads, c//heads).permute(2,0,3,1,4)
    at = torch.cartesian_prod(torch.arange(ws), torch.arange(ws))
    off = at[:,None]-at+ws-1
    bias = sd[f'{k}.w_msa.relative_position_bias_table'][off[...,0]*(2*ws-1)+off[...,1]].permute(2,0,1)
    r = cut(region[...,None])
    a = q@key.transpose(-1,-2)/(c//heads)**.5 + bias - 100.*(r!=r.transpose(1,2)).float()[:,None]
    y = linear((a.softmax(-1)@v).transpose(1,2).reshape(-1, ws*ws, c), sd, f'{k}.w_msa.proj')
    y = y.view(H//ws, W//ws, ws, ws, c).transpose(1, 2).reshape(H, W, c)
    return (y.roll((shift,shift), (0,1)) if shift else y)[:h,:w]

def swin_tiny(sd, x):
    x = F.conv2d(x, sd['patch_embed.projection.weight'], sd['patch_embed.projection.bias'], 4)[0].permute(1,2,0)
    x,maps = layer_norm(x, sd, 'patch_embed.norm'),[]
    for i,(n,heads) in enumerate(zip((2,2,6,2), (3,6,12,24))):
        for j in range(n):
            k = f'stages.{i}.blocks.{j}'
            x = x+window_attention(layer_norm(x, sd, f'{k}.norm1'), sd, f'{k}.attn', heads, 3*(j%2))
            x = x+linear(F.gelu(linear(layer_norm(x, sd, f'{k}.norm2'), sd, f'{k}.ffn.layers.0.0')), sd, f'{k}.ffn.layers.1')
        maps.append(layer_norm(x, sd, f'norm{i}').permute(2,0,1)[None])
        if i<3:   # a channel's four pixels lie together, by rows
            h,w,c = x.shape
            x = F.unfold(F.pad(x.permute(2,0,1)[None], (0,w%2,0,h%2)), 2, stride=2)[0].T.view((h+1)//2, (w+1)//2, 4*c)
            x = linear(layer_norm(x, sd, f'stages.{i}.downsample.norm'), sd, f'stages.{i}.downsample.reduction')
    return maps

def convnext_tiny(sd, x):
    maps,first = [],lambda x,f: f(x.permute(0,2,3,1)).permute(0,3,1,2)
    for i,n in enumerate((3,3,9,3)):
        conv,norm = ('0','1') if i==0 else ('1','0')
        k = f'downsample_layers.{i}'
        down = lambda x: F.conv2d(x, sd[f'{k}.{conv}.weight'], sd[f'{k}.{conv}.bias'], 4 if i==0 else 2)
        scale = lambda x: first(x, lambda o: layer_norm(o, sd, f'{k}.{norm}', 1e-6))
        x = scale(down(x)) if i==0 else down(scale(x))
        for j in range(n):
            b = f'stages.{i}.{j}'
            y = F.conv2d(x, sd[f'{b}.depthwise_conv.weight'], sd[f'{b}.depthwise_conv.bias'], padding=3, groups=x.shape[1])
            y = first(y,
                      lambda o: linear(F.gelu(linear(layer_norm(o, sd, f'{b}.norm', 1e-6), sd, f'{b}.pointwise_conv1')), sd,
                                       f'{b}.pointwise_conv2')*sd[f'{b}.gamma'])
            x = x+y
        maps.append(first(x, lambda o: layer_norm(o, sd, f'norm{i}', 1e-6)) if f'norm{i}.weight' in sd else None)
    return maps

@needs_oracle
@pytest.mark.parametrize('name,net',
                         [('oriented_rcnn_swin_tiny_fpn_1x_dota_le90',swin_tiny),('roi_trans_swin_tiny_fpn_1x_dota_le90',swin_tiny),
                          ('r3det_kfiou_ln_swin_tiny_adamw_fpn_1x_dota_ms_rr_oc',swin_tiny),
                                      ('rotated_retinanet_obb_kld_stable_convnext_adamw_fpn_1x_dota_le90',convnext_tiny)])
def test_backbones_against_theirs_written_out(name, net):
    "The maps that reach the neck, of an image whose maps no window divides"
    sd = checkpoint(name, 'keys_0x')
    det,x = quietly(sd),torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0))
    own = {k[9:]:v for k,v in sd.items() if k.startswith('backbone.')}
    with torch.no_grad(): ours,theirs = det.backbone(x),net(own, x)[-len(det.backbone.strides):]
    errs = [((a-b).abs().max()/b.abs().max()).item() for a,b in zip(ours, theirs, strict=True)]
    print(name, errs)
    close(errs, 1e-4)

# --- the measure itself

@pytest.mark.parametrize('errs', [{}, [], dict(a=1e-6, b=float('nan')), [float('nan'),1e-6], [1e-6,float('inf')], [-1.], [1e-6,2e-4]])
def test_no_measure_passes_over_nan(errs):
    close([1e-6,0.], 1e-4)
    with pytest.raises(AssertionError): close(errs, 1e-4)
