"TEMPORARY: stands in for core's candidates and nms_torch of ops until both are on main"
import math, json, torch, torch.nn.functional as F
from functools import partial
from torch import nn, Tensor
from torchvision.ops import nms as nms_upright, roi_align
from rotnb.geometry.boxes import rbox2hbox
from rotnb.ops.roi_align import roi_align_rotated
from rotnb.models.dense_head import DenseHead
from rotnb.models.rpn import RPNHead
from rotnb.models.roi_head import RoIHead, roi_align_hbox, roi_levels
from rotnb.targets.roi_coders import clip_sides, clip_centers, MidpointOffsetCoder

# ---- PATCHES: what the library would have to say differently -----------------------------------------------------------------------------

import rotnb.geometry.boxes as _b, rotnb.geometry.polygons as _p
def _least_rect(p, d, ctr): # ONNX Runtime 1.32 has no Atan of float64: the angle's atan2 in float32
    n = d.norm(dim=-1, keepdim=True)
    d = torch.where(n==0, d.new_tensor([1.,0]), d/torch.where(n==0, 1., n))
    area,rect = _b._rect_along(p, d)
    i = area.argmin(-1)[...,None,None].expand(*area.shape[:-1], 1, 2)
    d,(mu,mv,w,h) = d.gather(-2, i).squeeze(-2),rect.gather(-2, i[...,:1].expand(*i.shape[:-1], 4)).squeeze(-2).unbind(-1)
    dx,dy = d.unbind(-1)
    xy = ctr.squeeze(-2)+torch.stack([mu*dx-mv*dy, mu*dy+mv*dx], -1)
    return torch.cat([xy, torch.stack([w,h,torch.atan2(dy.float(),dx.float()).to(w.dtype)], -1)], -1)
_b._least_rect = _p._least_rect = _least_rect

# ---- greedy NMS ------------------------------------------------------------------------------------------------------------------------

def columns(boxes:Tensor)->Tensor: # (n, 5) -> (7, n): cx, cy, half w, half h, cos, sin, area
    "What the pair formula needs of each box"
    cx,cy,w,h,t = boxes.unbind(1)
    return torch.stack([cx, cy, w/2, h/2, t.cos(), t.sin(), w*h])

def _frac(num, den): # share of an edge at which a border is met
    flat = den==0
    return torch.where(flat, (num>0).to(num.dtype), (num/torch.where(flat, 1., den)).clamp(0,1))

def pair_iou(A:Tensor, B:Tensor)->Tensor: # (7, q), (7, q) -> (q,)
    "Exact IoU of pairs: clamp(y) integrated over d clamp(x) round the first box, seen from the second"
    ax,ay,aw,ah,ac,as_,aa = A.unbind(0)
    bx,by,bw,bh,bc,bs,ba = B.unbind(0)
    dx,dy = ax-bx,ay-by
    x,y,c,s = dx*bc+dy*bs,dy*bc-dx*bs,ac*bc+as_*bs,as_*bc-ac*bs
    ux,uy,vx,vy = c*aw,s*aw,-s*ah,c*ah
    x0 = torch.stack([x-ux-vx, x+ux-vx, x+ux+vx, x-ux+vx]); y0 = torch.stack([y-uy-vy, y+uy-vy, y+uy+vy, y-uy+vy])   # (4, q)
    x1,y1 = torch.cat([x0[1:],x0[:1]]),torch.cat([y0[1:],y0[:1]])   # not `roll`: it asks whether it is empty, which torch.export cannot know
    ex,ey = x1-x0,y1-y0
    t1,t2 = _frac(-bw-x0, ex),_frac(bw-x0, ex)
    ta,tb = torch.minimum(t1,t2),torch.maximum(t1,t2)
    ya,yb = y0+ta*ey,y0+tb*ey
    s1,s2 = _frac(-bh-ya, yb-ya),_frac(bh-ya, yb-ya)
    cl = lambda v,l: torch.maximum(torch.minimum(v,l),-l)
    ca,cb = cl(ya,bh),cl(yb,bh)
    mean = ca*torch.minimum(s1,s2)+(ca+cb)/2*(s1-s2).abs()+cb*(1-torch.maximum(s1,s2))
    inter = (mean*(cl(x0+tb*ex,bw)-cl(x0+ta*ex,bw))).sum(0).abs()
    return inter/(aa+ba-inter)

def touching(boxes:Tensor, group:Tensor)->tuple: # (v, 5) best first, (v,) -> i, j of pairs, i before j
    "Pairs of one group whose upright boxes touch"
    h = rbox2hbox(boxes)
    m = 1e-3+1e-5*h.abs().amax(1)                             # float32 must not lose a pair
    x1,y1,x2,y2 = h.unbind(1)
    x1,y1,x2,y2 = x1-m,y1-m,x2+m,y2+m
    n = torch.arange(boxes.shape[0], device=boxes.device)
    ok = (n[:,None]<n) & (group[:,None]==group)
    ok = ok & (x1[:,None]<=x2) & (x1<=x2[:,None]) & (y1[:,None]<=y2) & (y1<=y2[:,None])
    return ok.nonzero().unbind(1)

def greedy(boxes, scores, labels, thr, rounds=31, dtype=torch.float64, loop=None): # (b,P,5), (b,P), (b,P) best first; scores < 0 are no candidates
    "Which candidates greedy NMS keeps, (b, P) bool"
    b,P = scores.shape
    at = (scores>=0).flatten().nonzero()[:,0]                 # the rest of the work is on these only
    group = (labels*b+torch.arange(b, device=labels.device)[:,None]).flatten()[at]
    v = boxes.flatten(0,1)[at]
    i,j = touching(v, group)
    T = columns(v.to(dtype))
    hit = (pair_iou(T[:,i], T[:,j])>thr).nonzero()[:,0]
    i,j = i[hit],j[hit]
    ok = torch.ones_like(v[:,0])
    def step(keep): return (torch.zeros_like(keep).index_add(0, j, keep[i])==0).to(keep.dtype)
    if loop: keep = loop(step, ok)
    else:
        keep = ok
        for _ in range(rounds): keep = step(keep)
    return torch.zeros_like(scores).flatten().index_add(0, at, keep).view(b,P)>0

def until_settled(step, keep):
    "The fixed point by `torch.while_loop`"
    from torch._higher_order_ops.while_loop import while_loop
    def cond(a, b): return (a!=b).any()
    def body(a, b): return b.clone(),step(b)
    return while_loop(cond, body, (keep, step(keep)))[1]

# ---- what replaces custom operators ----------------------------------------------------------------------------------------------------

def roi_align_plain(x, rois, size, scale=1., sampling_ratio=2, **_): # (1,c,H,W), (k,6) -> (k,c,size,size); sampling_ratio > 0
    "`roi_align_rotated` of one picture by grid_sample"
    n = sampling_ratio
    (c,H,W),S = x.shape[1:],size*n
    cx,cy,w,h,t = rois[:,1:].unbind(1)
    g = (torch.arange(S, device=x.device, dtype=x.dtype)+.5)/S-.5
    u,v = (w*scale)[:,None]*g,(h*scale)[:,None]*g
    cos,sin = t.cos()[:,None,None],t.sin()[:,None,None]
    X = (cx*scale-.5)[:,None,None] + cos*u[:,None,:] - sin*v[:,:,None]
    Y = (cy*scale-.5)[:,None,None] + sin*u[:,None,:] + cos*v[:,:,None]
    inside = ((X>=-1)&(X<=W)&(Y>=-1)&(Y<=H)).to(x.dtype)
    grid = torch.stack([(2*X+1)/W-1, (2*Y+1)/H-1], -1).view(1,-1,S,2)
    out = F.grid_sample(x, grid, padding_mode='border', align_corners=False)     # (1,c,k*S,S)
    out = out.view(c,-1,S,S)*inside
    return out.view(c,-1,size,n,size,n).mean((3,5)).transpose(0,1)

def roi_align_gather(x, rois, size, scale=1., sampling_ratio=2, **_):
    "The same by Gather of pixel rows"
    n = sampling_ratio
    (c,H,W),S = x.shape[1:],size*n
    cx,cy,w,h,t = rois[:,1:].unbind(1)
    g = (torch.arange(S, device=x.device, dtype=x.dtype)+.5)/S-.5
    u,v = (w*scale)[:,None]*g,(h*scale)[:,None]*g
    cos,sin = t.cos()[:,None,None],t.sin()[:,None,None]
    X = (cx*scale-.5)[:,None,None] + cos*u[:,None,:] - sin*v[:,:,None]
    Y = (cy*scale-.5)[:,None,None] + sin*u[:,None,:] + cos*v[:,:,None]
    inside = ((X>=-1)&(X<=W)&(Y>=-1)&(Y<=H)).to(x.dtype)/(n*n)
    X,Y = X.clamp(min=0).clamp(max=W-1),Y.clamp(min=0).clamp(max=H-1)
    x0,y0 = X.floor(),Y.floor()
    fx,fy = X-x0,Y-y0
    x0,y0 = x0.long(),y0.long()
    x1,y1 = (x0+1).clamp(max=W-1),(y0+1).clamp(max=H-1)
    rows = x[0].flatten(1).t()                                # (HW, c)
    take = lambda yy,xx,f: rows[(yy*W+xx).flatten()].view(*yy.shape,c)*(f*inside)[...,None]
    out = take(y0,x0,(1-fy)*(1-fx))+take(y0,x1,(1-fy)*fx)+take(y1,x0,fy*(1-fx))+take(y1,x1,fy*fx)
    return out.view(-1,size,n,size,n,c).sum((2,4)).permute(0,3,1,2)

def roi_align_hbox_plain(x, rois, size, scale=1., sampling_ratio=0, **_):
    "`roi_align_hbox` by torchvision's operator, which is ONNX RoiAlign"
    return roi_align(x, torch.cat([rois[:,:1], rbox2hbox(rois[:,1:])], 1), size, scale, sampling_ratio or -1, aligned=True)

def plain_pool(pool, rotated=roi_align_gather):
    f,kw = (pool.func,pool.keywords) if isinstance(pool, partial) else (pool,{})
    if f is roi_align_rotated and kw.get('sampling_ratio'): return partial(rotated, **kw)
    if f is roi_align_hbox: return partial(roi_align_hbox_plain, **kw)
    raise NotImplementedError(f"no plain form of {pool}")

# ---- stages ----------------------------------------------------------------------------------------------------------------------------

def smallest(a, b): return torch.sym_min(a, b)

def split_levels(feats, n): return [f.shape[-2]*f.shape[-1]*n for f in feats]

def dense_candidates(head, out, counts, pre): # boxes (b,P,5), scores (b,P) best first, labels; -1 is none
    K,scores = head.n_classes,out.logits.sigmoid()
    factor = None if out.quality is None else out.quality.sigmoid()
    v,at,start = [],[],0
    for n in counts:
        if head.nms_pre_of!='pairs': raise NotImplementedError("nms_pre_of='priors'")
        s,i = scores[:,start:start+n].flatten(1).topk(smallest(head.nms_pre, n*K), dim=1)
        v.append(s); at.append(i+start*K); start = start+n
    v,at = torch.cat(v, 1),torch.cat(at, 1)
    pri,lab = at//K,at%K
    s = v if factor is None else v*factor.gather(1, pri)
    s = torch.where(v>head.score_thr, s, -1.)
    s,i = s.topk(smallest(pre, s.shape[1]), dim=1)
    pri,lab = pri.gather(1, i),lab.gather(1, i)
    take = lambda o: o.gather(1, pri[...,None].expand(-1,-1,o.shape[-1])).flatten(0,1)
    boxes = head.coder.decode(take(out.priors), take(out.deltas)).view(*s.shape, 5)
    if head.clip_centers: boxes = clip_centers(boxes, out.size_hw)
    return *_sound(boxes, s),lab

def _sound(boxes, s):
    ok = (boxes.abs()<torch.inf).all(-1) & (boxes[...,2:4]>0).all(-1) & (s.abs()<torch.inf)
    return torch.where(ok[...,None], boxes, 0.),torch.where(ok, s, -1.)

def rpn_proposals(head, out, counts): # (1, R, 5), best first; zeros fill up
    "Proposals of one picture, a fixed number"
    scores = out.logits[0,:,0].sigmoid()
    boxes,ss,start = [],[],0
    for n in counts:
        s,i = scores[start:start+n].topk(smallest(head.nms_pre, n))
        i = i+start
        b = head.coder.decode(out.priors[0][i], out.deltas[0][i])
        if not isinstance(head.coder, MidpointOffsetCoder): b = clip_sides(b, out.size_hw)
        b,s = _sound(b, s)
        keep = nms_upright(rbox2hbox(b), s, head.iou_thr)
        left = torch.zeros_like(s).index_fill(0, keep, 1.)
        boxes.append(b); ss.append(torch.where(left>0, s, -1.)); start = start+n
    boxes,s = torch.cat(boxes),torch.cat(ss)
    s,i = s.topk(smallest(head.max_per_img, s.shape[0]))
    return torch.where((s>=0)[:,None], boxes[i], 0.)[None]

class RoIStage(nn.Module):
    "A `RoIHead` on one picture, all proposals kept in place"
    def __init__(self, head, pool, compact=True):
        super().__init__()
        self.head,self.pool,self.compact = head,plain_pool(head.pool, pool),compact

    def look(self, feats, rois, lvls): # (k,5), (k,) -> logits, deltas
        h = self.head
        r = torch.cat([torch.zeros_like(rois[:,:1]), rois], 1)
        parts,order = [],[]
        for i,(f,s) in enumerate(zip(feats, h.strides)):
            on = (lvls==i).nonzero()[:,0]
            parts.append(self.pool(f, r[on], h.roi_size, 1/s)); order.append(on)
        x = torch.cat(parts)
        order = torch.cat(order)
        x = x[order.argsort()].flatten(1)
        for o in h.fcs: x = F.relu(o(x))
        return h.cls(x),h.box(x)

    def forward(self, feats, boxes): # (1,R,5) -> logits (1,R,K+1), deltas (1,R,d)
        h,rois = self.head,boxes[0]
        lvls = roi_levels(rois, min(len(h.strides), len(feats)), h.finest_scale)
        if self.compact:
            at = (rois[:,2:4]>0).all(-1).nonzero()[:,0]
            l,d = self.look(feats, rois[at], lvls[at])
            l = l.new_zeros(rois.shape[0], l.shape[1]).index_copy(0, at, l)
            d = d.new_zeros(rois.shape[0], d.shape[1]).index_copy(0, at, d)
        else: l,d = self.look(feats, rois, lvls)
        if hasattr(h.coder, 'squash'): d = h.coder.squash(d)
        return l[None],d[None]

def roi_candidates(head, logits, deltas, priors, size, pre): # of one picture
    K = head.n_classes
    scores = torch.stack(logits).mean(0).softmax(-1)[...,:-1]
    scores = torch.where((priors[...,2:4]>0).all(-1, keepdim=True), scores, -1.)
    flat = scores.flatten(1)
    flat = torch.where(flat>head.score_thr, flat, -1.)
    s,at = flat.topk(smallest(pre, flat.shape[1]), dim=1)
    pri,lab = at//K,at%K
    p = priors[0][pri[0]]
    d = deltas[0][pri[0]] if head.agnostic else deltas[0].view(-1, K, head.coder.n)[pri[0],lab[0]]
    boxes = head._decode(p, d, size)[None]
    return *_sound(boxes, s),lab


def nms_mask(boxes, scores, thr, idxs):
    "Kept of (n,5) that are all candidates, best first"
    T,(i,j) = columns(boxes.to(torch.float64)),touching(boxes, idxs)
    hit = (pair_iou(T[:,i], T[:,j])>thr).nonzero()[:,0]
    i,j = i[hit],j[hit]
    def step(keep): return (torch.zeros_like(keep).index_add(0, j, keep[i])==0).to(keep.dtype)
    return until_settled(step, torch.ones_like(boxes[:,0]))>0

def run_candidates(net, x, size_hw, pre=1000):
    feats = net.neck(net.backbone(x))
    rois = [RoIStage(s, roi_align_gather) for s in net.stages if isinstance(s, RoIHead)]
    if not rois:
        boxes = None
        for n,stage in enumerate(net.stages):
            out = stage(feats, boxes)._replace(size_hw=size_hw)
            if n+1<len(net.stages): boxes = stage.boxes(out)
        return dense_candidates(stage, out, split_levels(feats, stage.n), pre)
    rpn = net.stages[0]
    boxes = rpn_proposals(rpn, rpn(feats, None)._replace(size_hw=size_hw), split_levels(feats, rpn.n))
    said = []
    for n,r in enumerate(rois):
        h = r.head
        l,d = r(feats, boxes)
        said.append(l)
        if n+1<len(rois):
            best = l[...,:-1].argmax(-1).flatten()
            new = h._decode(boxes[0], h.deltas_of(d[0], best), size_hw)[None]
            none = ~(new.abs()<torch.inf).all(-1) | (boxes[...,2:4]<=0).any(-1)
            boxes = torch.where(none[...,None], 0., new)
    return roi_candidates(h, said if h.average else said[-1:], d, boxes, size_hw, pre)
