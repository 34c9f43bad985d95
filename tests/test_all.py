"`from rotnb.all import *` gives what a user types, and nothing that gets in the way"
import builtins, importlib, inspect
from collections import Counter
import pytest
from paths import ROOT
from source import chosen

CHOSEN = list(chosen())
NAMES = [n for _,n in CHOSEN]
DATA = {'DOTA_CLASSES','box_losses'}                                 # tables that lessons read: `vocab=DOTA_CLASSES['1.0']`

REPLACED = {'doc'}                                                   # fastai's shows nothing where nbdev is version 3

# What every user's code may rely on
PROMISED = '''rbox2qbox qbox2rbox rbox2hbox hbox2rbox canonicalize box_iou_rotated nms_rotated batched_nms_rotated roi_align_rotated
    create_detector list_detectors register_detector Detector eval_map compare_runs RotatedDataLoaders RBoxBlock RBoxLblBlock Annot
    read_format sniff_format read_dota write_dota doctor make_scene rotated_aug_transforms rotated_learner RotatedMAP SceneMAP
    RotatedInterpretation predict_image predict_images predict_scene predict_folder write_predictions draw show_boxes view
    DatasetExplorer ResultsExplorer LabelFixer suspicious load_mmrotate detector_from_mmrotate'''.split()

# Common words, and the names of internals that a star import once spilt into notebooks
UNWANTED = '''KINDS DONE TEAM LEFT READY FOUND TRUE FALSE OUTSIDE PEERS PAIRS Row Split Flat Sample inside tower chunks match explain fix
    better per_box upright spelt number settings prepared beside alone whole'''.split()

def test_names_are_chosen_one_by_one():
    assert 180<=len(NAMES)<=355, len(NAMES)
    twice = [n for n,k in Counter(NAMES).items() if k>1]
    assert '*' not in NAMES and not twice, twice

def test_promised_names_are_there_and_internals_are_not():
    ns = {}
    exec('from rotnb.all import *', ns)
    assert not [o for o in PROMISED if not callable(ns.get(o))]
    assert not set(UNWANTED)&set(NAMES)
    assert callable(ns['load_learner']) and ns['np'] and ns['torch']                  # fastai's star stays

def value(mod, name): return getattr(importlib.import_module(mod), name)

def test_no_constants_and_nothing_private():
    assert not [n for m,n in CHOSEN if n.startswith('_') or not callable(value(m, n)) and n not in DATA]

def test_no_name_hides_another():
    theirs = {}
    exec('from fastai.vision.all import *', theirs)
    hidden = [n for n in NAMES if (n in theirs or hasattr(builtins, n)) and n not in REPLACED]
    assert not hidden, f'fastai or Python has these names too: {hidden}'

def described(o):
    "Whether an object has a docstring of its own; a dataclass without one shows its signature"
    doc = inspect.getdoc(o)
    return bool(doc) and not doc.startswith(f'{o.__name__}(')

def test_each_is_public_in_its_module_and_says_what_it_is():
    hidden = [f'{m}.{n}' for m,n in CHOSEN if n not in importlib.import_module(m).__all__]
    silent = [f'{m}.{n}' for m,n in CHOSEN if n not in DATA and not described(value(m, n))]
    assert not hidden and not silent, f'not exported: {hidden}; without docstring: {silent}'

@pytest.mark.parametrize('group', [o.strip() for o in (ROOT/'rotnb/all.py').read_text(encoding='utf-8').split('\n\n')[1:]])
def test_groups_have_a_title(group):
    assert group.startswith('# ') and all(o.startswith(('from .','_explain_names()')) for o in group.splitlines()[1:])
