"The package's scripts without a browser"
import json, shutil, subprocess
import pytest
from rotnb.explore.script import STATIC

def node(scripts, code, data):
    "Run JavaScript over some of the package's scripts; `data` is what it is given, its value is returned"
    if not shutil.which('node'): pytest.skip('node is not installed')
    text = '\n'.join((STATIC/f'{name}.js').read_text() for name in scripts)
    text += f'\nconst data = JSON.parse(require("fs").readFileSync(0, "utf8"))\nconsole.log(JSON.stringify({code}))'
    run = subprocess.run(['node','-e',text], input=json.dumps(data), capture_output=True, text=True, timeout=60)
    assert run.returncode==0, run.stderr
    return json.loads(run.stdout)
