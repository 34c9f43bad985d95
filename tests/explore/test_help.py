"`?`, Shift-Tab, `help()` and `doc()` say what each parameter means"
import builtins, importlib, inspect, pickle, pydoc, sys
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
import rotnb.all as everything
from rotnb.explore.help import ExplainedDoc, doc, explain, explain_names, parameters, public_names
from paths import ROOT
from source import chosen

FROM_FASTAI = {'lr_find'}                                            # whose parameters have no comments there
NAMES = {n:o for m,n in chosen() if callable(o := getattr(importlib.import_module(m), n)) and n!='box_losses'}
ASKED = '''rotated_learner RotatedDataLoaders.from_dota RotatedDataLoaders.from_synth predict_scene predict_folder draw eval_map
    RotatedInterpretation.from_learner RotatedInterpretation.plot_pr RotatedInterpretation.worst write_predictions doctor'''.split()

@pytest.fixture
def shell(monkeypatch):
    "IPython's shell, which leaves nothing behind: it says by `sys.ps1` that somebody is typing"
    for name in ('ps1','ps2','ps3'): monkeypatch.setattr(sys, name, '', raising=False)
    for name in ('__IPYTHON__','display','get_ipython'): monkeypatch.setattr(builtins, name, None, raising=False)
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()

def named(o): return [(name.lstrip('*'),comment) for name,_,comment in parameters(o) if name[0]!='*']
def value(name):
    top,*rest = name.split('.')
    o = getattr(everything, top)
    for part in rest: o = getattr(o, part)
    return o

def test_every_parameter_of_every_name_is_in_its_help():
    silent = {}
    for name,o in NAMES.items():
        text = inspect.getdoc(o)
        if left := [one for one,comment in named(o) if not comment or f'{one}: {comment}' not in text and not any(
                line.strip().startswith(f'{one}=') and line.endswith(f': {comment}') for line in text.splitlines())]: silent[name] = left
    assert len(NAMES)>180 and not silent, silent

def test_methods_of_what_users_hold():
    "Those of loaders, learners, interpretations: every parameter has a comment, those that `@delegates` brings too"
    classes = [everything.RotatedDataLoaders, everything.RotatedInterpretation, everything.RotatedLearner, everything.DoctorReport]
    found = [getattr(cls, n) for cls in classes for n in vars(cls) if n[0]!='_' and n not in FROM_FASTAI]
    methods = [o for o in found if inspect.isroutine(o) and not o.__qualname__.startswith('Learner.')]     # fastai's have no comments
    bare = {o.__qualname__:left for o in methods if (left := [name for name,comment in named(o) if not comment])}
    assert len(methods)>40 and not bare, bare

def test_signatures_are_those_of_the_call():
    assert list(inspect.signature(everything.RotatedInterpretation.plot_pr).parameters)==['self','classes','ax','figsize']
    assert [n for n,_ in named(everything.RotatedInterpretation.worst)]==['cls','kind','n']     # `cls` is a parameter here

@pytest.mark.parametrize('name', ASKED)
def test_what_jupyter_shows(name, shell):
    "The answer to `inspect_request`, which `?` and Shift-Tab send"
    shell.user_ns.update(vars(everything))
    text = shell.object_inspect_mime(name)['text/plain']
    missing = [one for one,comment in named(value(name)) if comment not in text]
    assert named(value(name)) and not missing, missing
    text = pydoc.plain(pydoc.render_doc(value(name)))
    assert all(comment in text for _,comment in named(value(name)))

@pytest.mark.slow
def test_a_real_kernel():
    from jupyter_client.manager import start_new_kernel
    manager,client = start_new_kernel(kernel_name='python3', cwd=str(ROOT))
    try:
        client.execute_interactive('from rotnb.all import *', timeout=180)
        for name in ASKED:
            client.inspect(name, len(name))
            text = client.get_shell_msg(timeout=60)['content']['data']['text/plain']
            assert all(comment in text for _,comment in named(value(name))), name
        shown = []
        client.execute_interactive('doc(rotated_learner)', timeout=60, output_hook=lambda msg: shown.append(msg))
        data = [msg['content']['data'] for msg in shown if msg['msg_type']=='display_data']
        assert len(data)==1 and '| `wd_bn_bias` | `False` | also on norms and biases |' in data[0]['text/markdown']
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

def test_doc_shows_itself(capsys, shell):
    with capture_output() as seen: doc(everything.rotated_learner)
    data, = [o.data for o in seen.outputs]
    assert '**rotated_learner** (`rotnb.learn.learner`)' in data['text/markdown'] and '`angle`' in data['text/markdown']
    InteractiveShell.clear_instance()
    for o in (everything.Learner, everything.Learner.fit_one_cycle, len, everything.RotatedMAP(), dict): doc(o)
    assert 'fit_one_cycle(n_epoch' in capsys.readouterr().out

def test_an_explained_docstring_is_a_string():
    def f(
        a, # one
        b:int=2 # two
    ):
        "Short"
    short = f.__doc__
    assert explain(f) is f and explain(f).__doc__ is f.__doc__ and f.__doc__==short and f.__doc__.short==short
    assert str(f.__doc__).splitlines()==['Short','','Parameters:','    a: one','    b=2: two'] and repr(f.__doc__)==repr(str(f.__doc__))
    assert type(pickle.loads(pickle.dumps(f.__doc__))) is str
    class Bare: pass
    assert explain(Bare).__doc__ is None and not isinstance(Bare.__doc__, ExplainedDoc)

def test_all_explains_what_it_brings():
    assert all(isinstance(o.__doc__, ExplainedDoc) for o in NAMES.values() if inspect.isfunction(o))
    assert everything.Learner.summary in public_names() and isinstance(everything.Learner.summary.__doc__, ExplainedDoc)

def test_nothing_is_parsed_on_import(monkeypatch):
    "To read a name's comments takes milliseconds, and there are two thousand names"
    def refuse(o, *args, **kw): raise AssertionError(f'{o} was read')
    for name in ('parameters','docments'): monkeypatch.setattr(f'rotnb.explore.help.{name}', refuse)
    explain_names()
    with pytest.raises(AssertionError, match='was read'): str(everything.draw.__doc__)
