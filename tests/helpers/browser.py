"A JupyterLab or Notebook 7 of its own and a headless Chromium, for tests of widgets; `conftest.py` makes the fixtures known"
import json, os, secrets, shutil, socket, subprocess, sys, tempfile, time, urllib.request
from importlib.util import find_spec
from pathlib import Path
from paths import ROOT
import pytest

ARGS = '''--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update
    --disable-sync'''.split()

def chromium_path():
    "The browser of the machine; the test is skipped where there is none"
    for o in ('playwright','jupyterlab','ipykernel'):
        if not find_spec(o): pytest.skip(f'{o} is not installed: pip install -e ".[dev]"')
    path = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome'))), None)
    return path or pytest.skip('no chromium on this machine')

TREES = dict(jupyterlab='doc/tree', notebook='notebooks')                   # where each opens a document alone on a page
NOTEBOOKS_OWN = "(reading 'schema')"                                      # Notebook 7.6's shortcuts, while its settings are loaded

class Lab:
    "A server whose settings, runtime and notebooks lie in a folder of its own"
    def __init__(self, folder, app='jupyterlab'):
        self.tree = TREES[app]
        self.root,self.token = Path(folder)/'work',secrets.token_hex(16)
        self.root.mkdir(parents=True)
        with socket.socket() as s: s.bind(('127.0.0.1', 0)); self.port = s.getsockname()[1]
        home = Path(folder)/'home'
        dirs = {k:str(home/k.lower()) for k in ('JUPYTER_CONFIG_DIR','JUPYTER_DATA_DIR','JUPYTER_RUNTIME_DIR','IPYTHONDIR')}
        cache = os.environ.get('XDG_CACHE_HOME', str(Path.home()/'.cache'))          # matplotlib's fonts are not indexed again
        env = {**os.environ, **dirs, 'HOME':str(home), 'XDG_CACHE_HOME':cache, 'ROTNB_HOME':str(home/'rotnb'), 'PYTHONPATH':str(ROOT),
               'OMP_NUM_THREADS':'1'}
        env.pop('MPLBACKEND', None)                                       # the inline backend, as users have it
        for o in dirs.values(): Path(o).mkdir(parents=True)
        quiet = home/'jupyter_config_dir/labconfig'; quiet.mkdir()
        (quiet/'default_setting_overrides.json').write_text(json.dumps({
            '@jupyterlab/apputils-extension:notification':dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True)}))
        (quiet/'page_config.json').write_text('{"exposeAppInBrowser": true}')    # `jupyterapp`; only JupyterLab has a flag for it
        (home/'jupyter_config_dir/jupyter_server_config.py').write_text('')
        self.log = open(Path(folder)/'lab.log', 'w')
        cmd = [sys.executable, '-m', app, '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={self.port}',
               '--ServerApp.port_retries=0', f'--IdentityProvider.token={self.token}', f'--ServerApp.root_dir={self.root}',
               '--LabApp.extension_manager=readonly']
        self.proc = subprocess.Popen(cmd, env=env, cwd=self.root, stdout=self.log, stderr=self.log)
        for _ in range(240):
            try: urllib.request.urlopen(f'http://127.0.0.1:{self.port}/api?token={self.token}', timeout=5).close(); return
            except OSError:
                if self.proc.poll() is not None: break
                time.sleep(.25)
        self.stop()
        raise RuntimeError(f'{app} did not start:\n{(Path(folder)/"lab.log").read_text()[-3000:]}')

    def notebook(self, name, *cells):
        "Write a notebook of code cells"
        meta = dict(kernelspec=dict(name='python3', display_name='Python 3', language='python'))
        cells = [dict(cell_type='code', id=f'c{i}', metadata={}, execution_count=None, outputs=[], source=o) for i,o in enumerate(cells)]
        (self.root/name).write_text(json.dumps(dict(cells=cells, metadata=meta, nbformat=4, nbformat_minor=5)))

    def open(self, page, name, *cells, wait='.rn-viewer .rn-canvas', timeout=180):
        "Write a notebook, open it alone on a page, run all cells and wait for what they show; an error in a cell fails"
        self.notebook(name, *cells)
        self.visit(page, name, timeout)
        return self.run(page, wait, timeout)

    def visit(self, page, name, timeout=180):
        "Open a notebook alone on a page, with a kernel"
        page.goto(f'http://127.0.0.1:{self.port}/{self.tree}/{name}?token={self.token}')
        page.wait_for_selector('.jp-Notebook .jp-CodeCell', timeout=timeout*1000)
        kernel = 'jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel'
        page.wait_for_function(f'() => window.jupyterapp && {kernel}?.connectionStatus=="connected"', timeout=timeout*1000)

    def run(self, page, wait='.rn-viewer .rn-canvas', timeout=180):
        "Run all cells to their end: the first run on a machine compiles numba's functions, which takes a slow one longer than a minute"
        page.wait_for_function("() => jupyterapp.commands.isEnabled('notebook:run-all-cells')", timeout=timeout*1000)
        page.evaluate("""ms => Promise.race([jupyterapp.commands.execute('notebook:run-all-cells'),
            new Promise((_, no) => setTimeout(() => no(new Error('the cells did not end')), ms))])""", timeout*1000)
        errors = page.locator('.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
        assert not errors, errors[0]
        target = page.locator(wait.split()[0]).first
        target.wait_for(state='attached', timeout=timeout*1000)
        target.scroll_into_view_if_needed()                               # images below the fold are not asked for
        page.wait_for_selector(wait, timeout=timeout*1000)
        return page

    def kernel(self, page, code, timeout=30):
        "Run code in the notebook's kernel and return what it prints"
        return page.evaluate("""async ([code, ms]) => {
            const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel, out = [];
            const f = kernel.requestExecute({code, store_history: false});
            const said = {stream: m => m.content.text, error: m => m.content.evalue};
            f.onIOPub = m => { if (said[m.header.msg_type]) out.push(said[m.header.msg_type](m)) };
            await Promise.race([f.done, new Promise((_, no) => setTimeout(() => no(new Error('the kernel did not answer')), ms))]);
            return out.join('') }""", [code, timeout*1000]).strip()

    def stop(self):
        self.proc.terminate()
        try: self.proc.wait(15)
        except subprocess.TimeoutExpired: self.proc.kill(); self.proc.wait()
        self.log.close()

def server(app):
    "A server that ends its kernels when it ends"
    chromium_path()
    if not find_spec(app): pytest.skip(f'{app} is not installed: pip install {app}')
    folder = tempfile.mkdtemp(prefix='rotnb-lab-')
    o = Lab(folder, app)
    yield o
    o.stop()
    shutil.rmtree(folder, ignore_errors=True)

@pytest.fixture(scope='module')
def lab():
    "JupyterLab, one for the tests of a file"
    yield from server('jupyterlab')

@pytest.fixture(scope='module', params=TREES)
def either(request):
    "JupyterLab, and Notebook 7 where it is installed: their keyboards, pages and settings differ"
    if request.param=='jupyterlab': yield request.getfixturevalue('lab')
    else: yield from server(request.param)

@pytest.fixture(scope='module')
def browser():
    "Chromium, one for the tests of a file: other files fork, which what Playwright runs in this process does not survive"
    path = chromium_path()
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=ARGS)
        yield b
        b.close()

@pytest.fixture
def page(browser):
    "A page of its own; an error in its scripts fails the test, and nothing leaves the machine"
    context,errors,outside = browser.new_context(viewport=dict(width=1100, height=900)),[],[]
    pg = context.new_page()
    pg.on('pageerror', lambda e: NOTEBOOKS_OWN in str(e) or errors.append(str(e)))
    def local(route):
        ok = route.request.url.startswith(('http://127.0.0.1','ws://127.0.0.1','file:','blob:','data:'))
        if not ok: outside.append(route.request.url)
        route.continue_() if ok else route.abort()
    context.route('**/*', local)
    yield pg
    context.close()
    assert not errors, errors
    assert not outside, f'fetched from outside: {outside[:5]}'
