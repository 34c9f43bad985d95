"Hypothesis looks in new places wherever a person runs the tests; where a landing hangs on them it repeats itself"
import os
import pytest
if 'PYTEST_XDIST_WORKER' in os.environ:         # they share the cores, where threads of OpenMP would wait for each other by spinning
    for name,value in dict(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive').items(): os.environ.setdefault(name, value)
from hypothesis import settings

os.environ['ROTNB_RUNS'] = '0'                 # trainings leave no folders, but where a test asks for them

settings.register_profile('ci', derandomize=True, deadline=None)
if os.environ.get('CI'): settings.load_profile('ci')

from browser import browser, either, lab, page  # fixtures: JupyterLab, Notebook 7 and a Chromium, started when a test asks for them
from exported import exported               # fixture: a detector as files of other runtimes

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "By file, but each lesson for itself: they take longer than any file, and a process that got all could end long after the others"
    from xdist.scheduler import LoadFileScheduling
    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if 'test_lessons.py::test_a_lesson_runs' in nodeid else super()._split_scope(nodeid)
    if config.getvalue('dist')=='loadfile': return Scheduling(config, log)
