"Hypothesis looks in new places wherever a person runs the tests; where a landing hangs on them it repeats itself"
import os
from hypothesis import settings

os.environ['ROTNB_RUNS'] = '0'                 # trainings leave no folders, but where a test asks for them

settings.register_profile('ci', derandomize=True, deadline=None)
if os.environ.get('CI'): settings.load_profile('ci')

from browser import browser, either, lab, page  # fixtures: JupyterLab, Notebook 7 and a Chromium, started when a test asks for them
from exported import exported               # fixture: a detector as files of other runtimes
