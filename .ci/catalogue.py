"""The catalogue of published weights, rotnb/weights/published.json, from the lists of the folder `shared/spec`:

    python .ci/catalogue.py ../shared

Facts alone: names, addresses and figures as MMRotate, ai4rs, MMDetection and torchvision publish them. A file that both lines of
MMRotate name is one row, with the other name under `also`. Rows of methods that rotnb lacks are left out."""
import json, re, sys
from pathlib import Path
import timm, torchvision
from rotnb.data.formats.known_sets import known_set
from rotnb.models import create_detector

ROOT = Path(__file__).parents[1]

FAMILIES = [(re.compile(pattern), name) for pattern,name in [
    (r'cfa','cfa'), (r'g_reppoints','g_rep'), (r'oriented[-_]reppoints','oriented_reppoints'), (r'sasm','sasm'),
    (r'rotated[-_]reppoints','rotated_reppoints'), (r'rotated[-_]retinanet','rotated_retinanet'), (r'gliding','gliding_vertex'),
    (r'r3det','r3det'), (r'(oriented[-_]rcnn|lsk_[ts]_|pkinet_)','oriented_rcnn'), (r'redet','redet'), (r'roi[-_]trans','roi_trans'),
    (r'rotated[-_]atss','rotated_atss'), (r'rotated[-_]faster','rotated_faster_rcnn'), (r'rotated[-_]fcos','rotated_fcos'),
    (r's2anet','s2anet'), (r'h2rbox_v2-','h2rbox_v2'), (r'h2rbox-','h2rbox'), (r'rotated_rtmdet_tiny','rtmdet_r_tiny'),
    (r'rotated_rtmdet_s','rtmdet_r_s'), (r'rotated_rtmdet_m','rtmdet_r_m'), (r'rotated_rtmdet_l','rtmdet_r_l')]]
BACKBONES = [('swin[-_]tiny','swin_tiny_patch4_window7_224'), ('swin-l','swin_large_patch4_window7_224'), ('convnext','convnext_tiny'),
             ('lsk_t','lsknet_t'), ('lsk_s','lsknet_s'), ('pkinet_t','pkinet_t'), ('pkinet_s','pkinet_s'), ('re50','re_resnet50'),
             
             *((f'rtmdet_{size}', f'cspnext_{size}') for size in ('tiny','s','m','l')), ('','resnet50')]
DATA = [('dotav15|dotav1.5|dota1.5','dota-1.5'), ('dotav2','dota-2.0'), ('hrsc','hrsc'), ('dior','dior'), ('rsar','rsar'),
        ('star','star'), ('dota','dota-1.0')]                           # as `KNOWN_SETS` has them
# of ai4rs, what is not MMRotate's own: pages whose rows are of families that rotnb has, and files among them that are not
PAGES = {'configs/rotated_faster_rcnn':'', 'configs/rotated_fcos':'', 'tools/data/rsar':'', 'projects/LSKNet':'lsk_._backbone',
         'projects/PKINet':'', 'tools/data/star':r'detr|dcfl|h2rbox|psc|re_resnet|swin_large|dn_arw'}
LSK = 'Apache-2.0; LSKNet itself CC BY-NC 4.0'

def first(table, text): return next(value for pattern,value in table if re.search(pattern, text))

def family(name): return next((of for pattern,of in FAMILIES if pattern.match(name)), None)

def sha8(address):
    found = re.search(r'[-_]([0-9a-f]{8})\.pth$', address)
    return found[1] if found else ''

def row(name, address, ap50, ap=None, **more):
    "One of the catalogue"
    data,detector = first(DATA, name),family(name)
    rtmdet,size = 'rtmdet' in name,dict(hrsc=[800,512], dior=[800,800], rsar=[800,800]).get(data, [1024,1024])
    if data=='hrsc' and ('/v0' in address or rtmdet): size = [800,800]
    angle = re.search(r'le90|le135|oc(?![a-z])', address.rpartition('/')[2]) or re.search(r'le90|le135|oc(?![a-z])', name)
    return dict(name=name, detector=detector, backbone=first(BACKBONES, name), data=data, classes=len(known_set(data).classes),
                mAP50=ap50 and round(float(ap50)/100, 4), mAP50_95=ap and round(float(ap)/100, 4), angle=angle[0] if angle else 'le90',
                size=size, licence=LSK if name.startswith('lsk') else 'Apache-2.0', address=address, sha8=sha8(address), **more)

def of_mmrotate(rows, precise):
    "One row for each file, under its first name"
    made = {}
    for one in rows:
        address,figure = one['weights'],str(one['results'][0][1]['mAP'])
        ap,ap50 = figure.split('/')[:2] if '/' in figure else (None,figure)
        new = row(one['name'], address, ap50, ap or precise.get(sha8(address)), source='MMRotate', also=[])
        own = made.setdefault(Path(address).name, new)
        if one['name']!=own['name'] and not any(one['name'] in other['also'] for other in made.values()): own['also'].append(one['name'])
    for one in made.values():
        # a configuration that two files name is that of the one whose name says so
        if one['name'].startswith('r3det_kld_r50'): one['also'] = []
        if one['name'].startswith('r3det_kld_stable'): one['also'] = ['r3det-oc_r50_fpn_kld-stable_1x_dota']
    return [*made.values()]

def figures(cells): # of a table's row
    return [float(cell) for cell in cells if re.fullmatch(r'\d\d\.\d+', cell)]

def of_ai4rs(rows, known):
    "Rows of the pages above that MMRotate does not have"
    for one in rows:
        page = next((key for key in PAGES if one['page'].startswith(key+'/')), None)
        if page is None or one['address'] in known or PAGES[page] and re.search(PAGES[page], one['file']): continue
        found = figures(one['row'])
        stem = re.sub(r'_?epoch_\d+_?|\.py$', '', Path(one['file']).stem).strip('_')
        name = re.sub(r'[-_](\d{8}-)?[0-9a-f]{8}$', '', stem) or Path(one['address']).parent.name
        if not family(name): continue
        # three figures are AP50:95, AP50 and AP75 wherever AP50 is not the first, which is then followed by AP75 and AP50:95
        ap50,ap = (found[0],None) if len(found)<3 else (max(found), found[0] if found[0]!=max(found) else found[2])
        source = 'STAR-MMRotate' if 'star' in page else 'MMRotate' if 'LSKNet' in page else 'ai4rs'
        yield row(name, one['address'], ap50, ap, source=source, also=[])

def of_coco():
    "Upright RTMDet of MMDetection, configs/rtmdet/README.md: backbone, neck and the sides of boxes to start from"
    top = 'https://download.openmmlab.com/mmdetection/v3.0/rtmdet'
    for size,date,ap in [('tiny','20220902_112414-78e30dcc',41.1), ('s','20220905_161602-387a891e',44.6),
                         ('m','20220719_112220-229f527c',49.4), ('l','20220719_112030-5a0be7c4',51.5)]:
        name = f'rtmdet_{size}_8xb32-300e_coco'
        yield dict(name=name, kind='start', detector=f'rtmdet_r_{size}', backbone=f'cspnext_{size}', data='coco', classes=80, mAP50=None,
                   mAP50_95=round(ap/100, 4), angle='', size=[640,640], licence='Apache-2.0', address=f'{top}/{name}/{name}_{date}.pth',
                   sha8=date[-8:], source='MMDetection', also=[])

LICENCES = dict(MMYOLO='GPL-3.0', MMDetection='Apache-2.0')

def of_yolo():
    "Upright nets of the YOLO family, as the metafiles of MMYOLO 0.6 and MMDetection 3.3 list them: yolo_weights.tsv"
    head,*lines = (ROOT/'.ci/yolo_weights.tsv').read_text().splitlines()
    for line in lines:
        one = dict(zip(head.split('\t'), line.split('\t')))
        yield dict(name=one['name'], kind='upright', detector=one['detector'], backbone=one['backbone'], data='coco', classes=80,
                   mAP50=None, mAP50_95=round(float(one['AP'])/100, 4), angle='', size=[640,640], licence=LICENCES[one['source']],
                   address=one['address'], sha8=sha8(one['address']), source=one['source'], also=[],
                   parameters=int(one['parameters']) if one['parameters'] else None)

UPRIGHT = dict(fasterrcnn_resnet50_fpn='faster_rcnn', fasterrcnn_resnet50_fpn_v2='faster_rcnn', retinanet_resnet50_fpn='retinanet',
               retinanet_resnet50_fpn_v2='retinanet', fcos_resnet50_fpn='fcos')

def of_upright():
    "torchvision's detectors of upright boxes, those with a ResNet"
    for theirs,detector in UPRIGHT.items():
        for weights in torchvision.models.get_model_weights(theirs):
            ap = weights.meta['_metrics']['COCO-val2017']['box_map']
            yield dict(name=f'torchvision/{theirs}.{weights.name.lower()}', kind='upright', detector=detector, backbone='resnet50',
                       data='coco', classes=80, mAP50=None, mAP50_95=round(ap/100, 4), angle='', size=[1333,800], licence='BSD-3-Clause',
                       address=weights.url, sha8=sha8(weights.url), source='torchvision', also=[], parameters=weights.meta['num_params'])

def of_bodies():
    "Classifiers: what the configurations of MMRotate start from, and torchvision's"
    mm,csp = 'https://download.openmmlab.com','mmdetection/v3.0/rtmdet/cspnext_rsb_pretrain'
    rows = [(f'{mm}/{csp}/cspnext-tiny_imagenet_600e.pth','cspnext_tiny'), (f'{mm}/{csp}/cspnext-s_imagenet_600e.pth','cspnext_s'),
            (f'{mm}/{csp}/cspnext-m_8xb256-rsb-a1-600e_in1k-ecb3bbd9.pth','cspnext_m'),
            (f'{mm}/{csp}/cspnext-l_8xb256-rsb-a1-600e_in1k-6a760974.pth','cspnext_l'),
            (f'{mm}/mmrotate/v1.0/lsknet/backbones/lsk_t_backbone-2ef8a593.pth','lsknet_t'),
            (f'{mm}/mmrotate/v1.0/lsknet/backbones/lsk_s_backbone-e9d2e551.pth','lsknet_s'),
            ('https://huggingface.co/yangxue/STAR-MMRotate/resolve/main/re_resnet50_c8_batch256-25b16846.pth','re_resnet50')]
    for address,backbone in rows:
        source = 'MMDetection' if 'cspnext' in address else 'STAR-MMRotate' if 'yangxue' in address else 'MMRotate'
        detector = 'redet' if 're_resnet' in backbone else backbone.replace('cspnext', 'rtmdet_r') if 'cspnext' in backbone else ''
        name,licence = re.sub(r'-[0-9a-f]{8}$', '', Path(address).stem),LSK if 'lsk' in address else 'Apache-2.0'
        yield {**body(name, backbone, address, source, licence), 'detector':detector}
    names = dict(resnet18='resnet18', resnet34='resnet34', resnet50='resnet50', resnet101='resnet101', resnet152='resnet152',
                 swin_t='swin_tiny_patch4_window7_224', swin_s='swin_small_patch4_window7_224', swin_b='swin_base_patch4_window7_224',
                 **{f'convnext_{size}':f'convnext_{size}' for size in ('tiny','small','base','large')})
    for theirs,backbone in names.items():
        for weights in torchvision.models.get_model_weights(theirs):
            yield body(f'torchvision/{theirs}.{weights.name.lower()}', backbone, weights.url, 'torchvision', 'BSD-3-Clause')

def body(name, backbone, address, source, licence):
    return dict(name=name, kind='backbone', detector='', backbone=backbone, data='imagenet', classes=1000, mAP50=None, mAP50_95=None,
                angle='', size=[224,224], licence=licence, address=address, sha8=sha8(address), source=source, also=[])

def sized(rows, table):
    "The rows with their numbers of parameters, as MMRotate counts them, or as rotnb does"
    for one in rows:
        known = next((table[name] for name in (one['name'], *one['also']) if name in table), None)
        if one.get('kind')=='upright': yield one; continue
        if known is None and one.get('kind')!='backbone' and 'csl' not in one['name']: known = counted(**one)
        yield {**one, 'parameters':known}

SAME_LAYERS = dict.fromkeys(('cfa','sasm','g_rep','oriented_reppoints'), 'rotated_reppoints') | dict(h2rbox='rotated_fcos')

def counted(detector, backbone, classes, **_):
    "Parameters of a detector of rotnb; None where it lacks the backbone"
    if detector=='redet': return 31_566_029+7_175*(classes-1)           # MMRotate's for one class, and for each further one
    if not timm.is_model(backbone): return None
    model = create_detector(SAME_LAYERS.get(detector, detector), classes, backbone=backbone)
    return sum(part.numel() for part in model.parameters())

def main(shared):
    spec = Path(shared)/'spec'
    zoo,other = (json.loads((spec/name).read_text()) for name in ('weights.json','weights-ai4rs.json'))
    precise = {sha8(one['address']):figures(one['row'])[0] for one in other 
               if 'rtmdet' in one['page'] and 'hrsc' not in one['file'] and len(figures(one['row']))>2}
    rows = of_mmrotate([one for one in zoo if family(one['name'])], precise)
    rows += [*of_ai4rs(other, {one['address'] for one in rows}), *of_coco(), *of_yolo(), *of_upright(), *of_bodies()]
    found = re.findall(r'^\| (\S+) \| ([\d,]+) \|', (Path(shared)/'oracle/parameters.md').read_text(), re.M)
    rows = [*sized(rows, {name:int(count.replace(',', '')) for name,count in found})]
    names = [name for one in rows for name in (one['name'], *one['also'])]
    assert len(set(names))==len(names), sorted({name for name in names if names.count(name)>1})
    lines = [json.dumps({key:value for key,value in one.items() if value not in (None,'',[])}) for one in rows]
    text = '[\n'+',\n'.join(lines)+'\n]\n'
    (ROOT/'rotnb/weights/published.json').write_text(text)
    print(f'{len(rows)} rows, {len(text):,} bytes')

if __name__=='__main__': main(sys.argv[1])
