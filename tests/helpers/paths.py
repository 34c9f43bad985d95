"Where tests find the repository, and what lies beside it: real data and reference numbers, absent on most machines"
import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get('ROTNB_SHARED', ROOT.parent/'shared'))
