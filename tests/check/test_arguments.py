"No reader accepts an unknown keyword, and hints name arguments that exist"
import inspect
import pytest
import rotnb.all
from rotnb.learn.learner import RotatedLearner
from source import chosen
from rotnb.cli.convert import convert
from rotnb.data.labels.records import *
from rotnb.check.arguments import SYNONYMS, UnknownArgumentError
from rotnb.data.formats.table import *
from rotnb.data.doctor.report import doctor
from rotnb.data.loaders import RotatedDataLoaders
from rotnb.data.labels.tiles import tile_annots
from rotnb.data.formats.yolo import *
from text_sets import DOTA, flat, quick

READERS = [o for o in dir(RotatedDataLoaders) if o.startswith('from_') and o not in ('from_dblock','from_dsets')]

@pytest.mark.parametrize('name', READERS)
@pytest.mark.parametrize('word, near', [('imgsz','size'), ('batch_size','bs'), ('workers','num_workers'), ('min_visibel','min_visible'),
    ('epochs','fine_tune'), ('foo','')])
def test_no_reader_swallows_a_keyword(tmp_path, name, word, near):
    "Nothing is read before: there is no such set"
    args = ([],[]) if name=='from_annots' else (tmp_path/'none',)
    with pytest.raises(UnknownArgumentError, match=f'unknown argument {word!r}.*{near}'):
        getattr(RotatedDataLoaders, name)(*args, **{word:8})

def test_keywords_of_fastai_travel(tmp_path):
    r = flat(tmp_path, names='')
    (r/'names').unlink()
    dls = RotatedDataLoaders.from_yolo_obb(r, vocab=['ship'], val_bs=1, shuffle=False, drop_last=False, pin_memory=False, **quick)
    assert dls.valid.bs==1 and not dls.train.shuffle

def parameters_of(o):
    try: return inspect.signature(o).parameters
    except ValueError: return ()                     # an exception

def test_hints_name_arguments_that_exist():
    known = {k for f in (RotatedDataLoaders.from_annots, RotatedDataLoaders.from_format,
        tile_annots) for k in inspect.signature(f).parameters}
    known |= {'val_bs','shuffle','score_thr','iou_thr','iou_threshold','max_dets'}
    own = (getattr(rotnb.all, name) for _,name in chosen())
    known |= {name for o in own if callable(o) for name in parameters_of(o)}
    known |= {name for o in ('fit','fine_tune','fit_one_cycle') for name in inspect.signature(getattr(RotatedLearner, o)).parameters}
    lost = {near for words in SYNONYMS.values() for near in words.split()}-known
    assert not lost

@pytest.mark.parametrize('kw, say', [(dict(size='64'), "size is '64'"), (dict(size=(64,)), 'height, width'), (dict(bs=0), 'bs is 0'),
    (dict(tile='64'), 'tile is'), (dict(num_workers='2'), 'num_workers is'),
                                     (dict(size=0), 'size is 0'), (dict(tile=dict(gap=3)), "did you mean 'overlap'"),
                                     (dict(tile=dict(size='64')), "'64'")])
def test_values_that_are_no_numbers(tmp_path, kw, say):
    r = flat(tmp_path, labels='labelTxt', line=DOTA)
    with pytest.raises((ValueError,TypeError), match=say): RotatedDataLoaders.from_dota(r, **{**quick, **kw})

def test_options_of_readers_are_refused_everywhere(tmp_path):
    r = flat(tmp_path/'s', labels='labelTxt', line=DOTA)
    for f in (lambda: read_format(r, rbox='deg'), lambda: doctor(r, rbox='deg'), lambda: convert(r, tmp_path/'o', 'coco', rbox='deg'),
        lambda: RotatedDataLoaders.from_format(r, rbox='deg')):
        with pytest.raises(ValueError, match="dota has no option 'rbox'"): f()
