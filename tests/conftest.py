"Hypothesis looks in new places wherever a person runs the tests; where a landing hangs on them it repeats itself"
import os
if 'PYTEST_XDIST_WORKER' in os.environ:         # they share the cores, where threads of OpenMP would wait for each other by spinning
    for name,value in dict(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive').items(): os.environ.setdefault(name, value)
from hypothesis import settings

os.environ['ROTNB_RUNS'] = '0'                 # trainings leave no folders, but where a test asks for them

settings.register_profile('ci', derandomize=True, deadline=None)
if os.environ.get('CI'): settings.load_profile('ci')

from browser import browser, either, lab, page  # fixtures: JupyterLab, Notebook 7 and a Chromium, started when a test asks for them
from exported import exported               # fixture: a detector as files of other runtimes
