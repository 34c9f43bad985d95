"Every configuration of MMRotate, and every setting in them: it counts, is known to be without effect, or is refused by name"
import copy, gzip, json, re, warnings, pytest
from paths import ROOT
from rotnb.interop.mmconfig import IDLE, settings_from_config
from rotnb.interop.mmread import ANY, ConfigError
from rotnb.interop.mmpipeline import colours_from_config, pipeline_from_config
from rotnb.models.contract import list_detectors, settings as plain

CONFIGS = json.loads(gzip.decompress((ROOT/'tests/interop/data/configs.json.gz').read_bytes()))   # made by configs.py, beside it
FAMILY = dict(cfa='cfa', convnext='rotated_retinanet', csl='rotated_retinanet', g_reppoints='g_rep', gliding_vertex='gliding_vertex',
              gwd='rotated_retinanet', h2rbox='h2rbox', h2rbox_v2='h2rbox_v2', kld='rotated_retinanet|r3det',
              oriented_rcnn='oriented_rcnn',
              kfiou='rotated_retinanet|r3det|s2anet|roi_trans', oriented_reppoints='oriented_reppoints', psc='rotated_(fcos|retinanet)',
              r3det='r3det', redet='redet', roi_trans='roi_trans', rotated_atss='rotated_atss|r3det',
              rotated_faster_rcnn='rotated_faster_rcnn',
              rotated_fcos='rotated_fcos', rotated_reppoints='rotated_reppoints', rotated_retinanet='rotated_retinanet',
              rotated_rtmdet='rtmdet_r_.+', s2anet='s2anet|cascade_s2anet', sasm_reppoints='sasm')

def test_all_open_as_what_they_are():
    "188 less the one whose `_base_` MMRotate itself does not find; none with a warning"
    wrong = []
    for name,cfg in CONFIGS.items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter('always')
            try: kw,shown,colours = settings_from_config(cfg),pipeline_from_config(cfg),colours_from_config(cfg)
            except ConfigError as e: wrong.append((name, str(e))); continue
        ok = re.fullmatch(FAMILY[name.split('/')[1]], kw['name']) and kw['name'] in list_detectors() and shown['size'] and not said
        if not ok or 'data_preprocessor' in cfg['model'] and set(colours)!={'stats','channels'}:
            wrong.append((name, kw['name'], shown, said))
    assert len(CONFIGS)==187 and not wrong

SOME = ('0.x/rotated_retinanet/rotated_retinanet_obb_r50_fpn_1x_dota_le90.py',
        '1.x/kfiou/rotated-retinanet-hbox-le90_r50_fpn_kfiou_1x_dota.py',
        '1.x/psc/rotated-retinanet-rbox-le90_r50_fpn_psc-dual_amp-1x_dota.py', '1.x/rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py',
        '1.x/rotated_atss/rotated-atss-le90_r50_fpn_1x_dota.py', '1.x/rotated_rtmdet/rotated_rtmdet_l-3x-dota.py',
        '0.x/cfa/cfa_r50_fpn_1x_dota_le135.py', '1.x/h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota.py', '0.x/r3det/r3det_r50_fpn_1x_dota_oc.py',
        '1.x/s2anet/s2anet-le135_r50_fpn_1x_dota.py', '0.x/oriented_rcnn/oriented_rcnn_r50_fpn_1x_dota_le90.py',
        '1.x/roi_trans/roi-trans-le90_swin-tiny_fpn_1x_dota.py', '0.x/gliding_vertex/gliding_vertex_r50_fpn_1x_dota_le90.py')

def parts(o, path=()):
    "Every dictionary of a model, and where it lies"
    if isinstance(o, dict): yield path,o
    for key,value in o.items() if isinstance(o, dict) else enumerate(o) if isinstance(o, list) else ():
        if isinstance(value, (dict,list)): yield from parts(value, (*path,key))

def changed(model, path, key, value):
    "A model with one setting changed"
    model = copy.deepcopy(model)
    part = model
    for step in path: part = part[step]
    part[key] = value
    return model

def idle(path):
    "Whether a setting, or the part that it lies in, is without effect"
    steps = path.split('.')
    values = [next((values for pattern,values,_ in IDLE if re.search(pattern, '.'.join(steps[:i+1]))), ()) for i in range(len(steps))]
    return any(value is ANY for value in values)

@pytest.mark.parametrize('name', SOME)
def test_an_unknown_setting_is_named(name):
    "In whatever part it stands, unless nothing of that part has an effect"
    model,passed = CONFIGS[name]['model'],[]
    for path,_ in parts(model):
        where = '.'.join(map(str, path))
        try: settings_from_config(changed(model, path, 'unheard_of', 7))
        except ConfigError as e: assert 'unheard_of' in str(e), (where, str(e))
        else: passed.append(where)
    assert not [where for where in passed if not idle(f'{where}.unheard_of')]

def other(value):
    "A value that differs"
    if isinstance(value, bool): return not value
    if isinstance(value, (int,float)): return value+2
    if isinstance(value, str): return value+'x'
    return None

@pytest.mark.parametrize('name', SOME)
def test_every_setting_counts(name):
    "Each in turn is given another value: the detector is another then, or the setting is refused, or known to have no effect"
    model,silent = CONFIGS[name]['model'],[]
    before = plain(settings_from_config(model))
    for path,part in parts(model):
        for key,value in part.items():
            if (new := other(value)) is None: continue
            where = '.'.join(map(str, (*path,key)))
            try: after = plain(settings_from_config(changed(model, path, key, new)))
            except (ConfigError,KeyError,ValueError): continue
            if after==before: silent.append(where)
    assert not [where for where in silent if not idle(where)]
