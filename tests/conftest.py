"Hypothesis looks in new places wherever a person runs the tests; where a landing hangs on them it repeats itself"
import os
if 'PYTEST_XDIST_WORKER' in os.environ:         # they share the cores, where threads of OpenMP would wait for each other by spinning
    for name,value in dict(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive').items(): os.environ.setdefault(name, value)
import pytest
from hypothesis import settings

os.environ['ROTNB_RUNS'] = '0'                 # trainings leave no folders, but where a test asks for them

settings.register_profile('ci', derandomize=True, deadline=None)
if os.environ.get('CI'): settings.load_profile('ci')

from browser import browser, either, lab, page  # fixtures: JupyterLab, Notebook 7 and a Chromium, started when a test asks for them
from exported import exported               # fixture: a detector as files of other runtimes

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "A worker takes a file at a time, as its tests share fixtures; of the lessons, which share none, one at a time"
    from xdist.scheduler import LoadFileScheduling
    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid): return nodeid if 'test_lessons.py' in nodeid else super()._split_scope(nodeid)
    if config.getvalue('dist')!='loadfile': return
    config.option.loadscopereorder = False      # files of many tests would come first, and minutes of few tests last, in one worker
    return ByFile(config, log)

def pytest_collection_modifyitems(items):
    "Lessons first: with the longest pieces last, one worker would run alone"
    items.sort(key=lambda item: item.path.stem!='test_lessons')
